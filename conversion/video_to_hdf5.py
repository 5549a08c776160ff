"""Convert a folder of videos, with or without actions, into a folder of HDF5 shards.

The actions of `clip.mp4` are in `clip.npy` (frames, action_dim) or `clip.csv`, in the same folder.

python conversion/video_to_hdf5.py --video_dir clips --output_dir data/clips --target_fps 10 \
    --width 128 --pad_to_square
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("convert", "video")
