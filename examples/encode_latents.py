"""Encode a folder of shards once with a frozen tokenizer: dynamics training then reads latents instead of frames.

    accelerate launch examples/encode_latents.py --tokenizer outputs/tokenizer --data_dir data/pusht \
        --output_dir data/pusht-latents
    accelerate launch examples/train_dynamics.py --tokenizer outputs/tokenizer --data_dir data/pusht-latents ...
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("encode-latents")
