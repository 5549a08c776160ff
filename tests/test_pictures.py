import cv2
import numpy as np
import torch

from dreamer_hf.media import save_picture, side_by_side, tile


def test_pictures_have_a_row_of_tiles_for_each_row_of_images(tmp_path):
    red, blue = torch.zeros(2, 3, 3, 4, 4)
    red[:, 0], blue[:, 2] = 1, 1
    picture = tile([red, blue])
    assert picture.shape == (2 * 8, 3 * 8, 3)
    assert picture[4, 4].tolist() == [255, 0, 0] and picture[12, 20].tolist() == [0, 0, 255]
    assert picture[0, 0].tolist() == [255, 255, 255]
    save_picture(tmp_path / "pictures" / "a.png", picture)
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "pictures" / "a.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(stored, picture)


def test_films_show_both_sides_and_say_what_was_given():
    real, dream = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    pictures = side_by_side({"real": real, "dream": dream}, num_context_frames=1, height=64)
    assert len(pictures) == 3 and pictures[0].shape == (64 + 16 + 28, 2 * (64 + 8) + 8, 3)
    assert (pictures[1][60, 40] == 0).all() and (pictures[1][60, 112] == 255).all()
    assert not (pictures[0] == pictures[1]).all(), "the titles differ while frames are given"
