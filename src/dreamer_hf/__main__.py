"""`python -m dreamer_hf` is `dreamer`."""

from .cli import main

main()
