"""Tiny video files."""

import av
import numpy as np


def frames_of(episode, count=10, size=(16, 24)):
    """Return the frames of an episode, whose color tells the episode and the time."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[..., 0] = 20 * episode
    frames[..., 2] = 25 * np.arange(count)[:, None, None]
    return frames


def write_video(path, frames, codec, pixels, fps=10):
    """Write a video file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if codec == "libx264":
            stream.options = {"crf": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
