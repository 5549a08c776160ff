"""Convert published Dreamer-V4 `.pt` checkpoints into a folder that `from_pretrained` loads.

    python conversion/dreamer_v4_to_hf.py --tokenizer tokenizer-pushT-400M.pt --dynamics dynamics-pushT-110M.pt \\
        --output_dir pusht-world

Two files give the folder of a `DreamerWorldModel`, one file gives the folder of its model.
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("convert", "checkpoint")
