"""Convert an RLDS dataset (tfrecord or array_record) into a folder of HDF5 shards, without TensorFlow.

python conversion/rlds_to_hdf5.py --rlds_dir soar/1.0.0 --split success+failure --image_key observation/image_0 \\
    --fps 5 --output_dir data/soar
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("convert", "rlds")
