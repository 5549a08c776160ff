"""Images, GIFs and MP4 videos, read back and compared with what was written."""

import av
import cv2
import numpy as np
import torch
from PIL import Image, ImageSequence

from dreamer_hf.evaluation.videos import image_grid, side_by_side
from dreamer_hf.media import encode_image, save_gif, save_image, save_video, to_uint8


def test_frames_are_clipped_and_rounded():
    frames = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1]).view(1, 5, 1, 1, 1).expand(2, 5, 3, 4, 6)
    images = to_uint8(frames.to(torch.bfloat16))
    assert images.shape == (2, 5, 4, 6, 3) and images.dtype == np.uint8
    assert images[0, :, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_grid_has_a_row_for_each_row_of_images(tmp_path):
    red, blue = torch.zeros(2, 3, 3, 4, 4)
    red[:, 0], blue[:, 2] = 1, 1
    grid = image_grid([red, blue])
    assert grid.shape == (2 * 8, 3 * 8, 3)
    assert grid[4, 4].tolist() == [255, 0, 0] and grid[12, 20].tolist() == [0, 0, 255]
    assert grid[0, 0].tolist() == [255, 255, 255]
    save_image(tmp_path / "images" / "a.png", grid)
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "images" / "a.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(stored, grid)


def test_encoded_images_decode_to_what_they_show():
    image = np.full((16, 24, 3), (40, 90, 160), np.uint8)
    for format, tolerance in (("png", 0), ("jpeg", 3)):
        decoded = cv2.imdecode(np.frombuffer(encode_image(image, format), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.abs(decoded.astype(int) - image).max() <= tolerance


def test_side_by_side_videos_say_which_frames_are_context():
    real, dream = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    images = side_by_side({"real": real, "dream": dream}, num_context_frames=1, height=64)
    assert len(images) == 3 and images[0].shape == (64 + 16 + 28, 2 * (64 + 8) + 8, 3)
    assert (images[1][60, 40] == 0).all() and (images[1][60, 112] == 255).all()
    assert not (images[0] == images[1]).all(), "the titles differ in context frames"


def test_a_gif_keeps_its_colors(tmp_path):
    """A beige table next to a noisy dream of it, which a palette made for maximal coverage shows in pale green."""
    beige = torch.tensor([233, 229, 223]).div(255).view(3, 1, 1)
    real = beige.expand(12, 3, 72, 96).clone()
    for time, frame in enumerate(real):
        frame[:, 20:26, 4 * time : 4 * time + 40] = torch.tensor([0.2, 0.3, 0.6]).view(3, 1, 1)
        frame[:, 40 + time : 48 + time, 60:70] = torch.tensor([0.8, 0.2, 0.2]).view(3, 1, 1)
    dream = real + 0.08 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    images = np.stack(side_by_side({"real": real, "dream": dream}, num_context_frames=1, height=144))
    save_gif(tmp_path / "dream.gif", images, fps=10)
    with Image.open(tmp_path / "dream.gif") as gif:
        shown = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]).astype(int)
    assert shown.shape == images.shape
    assert np.abs(shown[:, 160:170, 20:180] - [233, 229, 223]).max() <= 3
    assert np.abs(shown - images).mean() < 3


def test_a_video_of_a_tensor(tmp_path):
    frames = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 3, 256, 256)
    save_video(tmp_path / "dream.mp4", frames, fps=10)
    with av.open(str(tmp_path / "dream.mp4")) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(shown.astype(int) - to_uint8(frames)).max() <= 3
