"""Convert any dataset of the `datasets` library into a folder of HDF5 shards.

A row is a frame (image column; rows of an episode follow each other) or an episode (video column).

python conversion/hf_dataset_to_hdf5.py --dataset me/frames --image_column image --action_column action \\
    --episode_column episode --output_dir data/frames
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("convert", "table")
