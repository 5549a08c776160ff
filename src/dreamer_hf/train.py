"""Train with several processes: `accelerate launch -m dreamer_hf.train tokenizer ...`, which is `dreamer train tokenizer ...`."""

from .cli import main

if __name__ == "__main__":
    main("train")
