"""`dreamer train` with several processes: `accelerate launch -m dreamer_hf.train tokenizer ...`."""

from .cli import main

if __name__ == "__main__":
    main("train")
