"""Record play in the gym-pusht simulator as a LeRobotDataset.

python examples/record_pusht.py --repo_id me/pusht-play --root data/pusht-play --episodes 160
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("record")
