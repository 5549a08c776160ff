"""`python -m dreamer_hf.serve` is `dreamer serve`."""

from ..cli import main

if __name__ == "__main__":
    main("serve")
