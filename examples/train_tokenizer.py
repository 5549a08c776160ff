"""Train a tokenizer on a folder of HDF5 shards and save a `DreamerTokenizerModel` folder.

python examples/train_tokenizer.py --preset pusht-tiny --data_dir data/pusht --output_dir outputs/tokenizer
accelerate launch examples/train_tokenizer.py --config my_tokenizer.yaml
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.runs import main

if __name__ == "__main__":
    run_script(lambda: main("tokenizer"))
