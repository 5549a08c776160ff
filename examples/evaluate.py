"""Measure a world on held-out episodes of a shard folder, against baselines and an upper bound.

    python examples/evaluate.py --model outputs/world --data_dir data/pusht --output_dir outputs/evaluation

Writes evaluation.json, evaluation.md (the main figures as a table), plots and videos; see docs/evaluation.md.
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("evaluate")
