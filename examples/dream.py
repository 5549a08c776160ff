"""Make videos of dreams of held-out episodes, under their own actions and next to the real frames.

    python examples/dream.py --model outputs/world --data_dir data/pusht --output_dir outputs/dream

Writes dream.mp4 and dream.gif. To measure how good the dreams are, use examples/evaluate.py.
"""

from dreamer_hf.cli import run_with_options
from dreamer_hf.evaluation.evaluate import save_dreams
from dreamer_hf.evaluation.evaluation_options import DreamVideoOptions

if __name__ == "__main__":
    run_with_options(DreamVideoOptions, save_dreams, __doc__)
