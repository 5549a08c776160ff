"""`python -m dreamer_hf.serve` is `dreamer serve`."""

from ..cli import main

main("serve")
