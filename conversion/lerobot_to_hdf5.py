"""Convert a LeRobotDataset of format v3.0 into a folder of HDF5 shards.

python conversion/lerobot_to_hdf5.py --repo_id lerobot/pusht --output_dir data/pusht --target_fps 5 \
    --width 256 --height 256
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("convert", "lerobot")
