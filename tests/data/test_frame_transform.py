"""Sizes of frames, and which episodes are chosen."""

import numpy as np
import pytest

from dreamer_hf.data.episodes import format_ranges, parse_ranges
from dreamer_hf.data.frame_transform import FrameTransform


def test_frame_transform_pads_or_stretches():
    frame = np.full((20, 40, 3), 200, np.uint8)
    padded = FrameTransform(width=10, pad_to_square=True)(frame)
    assert padded.shape == (10, 10, 3) and (padded[2:7] == 200).all() and not padded[:2].any() and not padded[8:].any()
    assert FrameTransform(pad_to_square=True)(frame).shape == (40, 40, 3)
    stretched = FrameTransform(width=10, height=10)
    assert stretched(frame).shape == (10, 10, 3) and stretched.stretches(20, 40) and not stretched.stretches(30, 30)


def test_ranges_in_every_spelling():
    assert (
        parse_ranges("3,8:10,0", range(10)) == [0, 3, 8, 9]
        and parse_ranges(None, range(2)) == [0, 1]
        and parse_ranges("7:", range(9)) == [7, 8]
    )
    for text in ("a", "3:2", "0:11", "-1"):
        with pytest.raises(ValueError, match="--episodes"):
            parse_ranges(text, range(10))
    numbers = [0, 3, 4, 7]
    assert format_ranges(numbers) == "0:1,3:5,7:8" and parse_ranges("0:1,3:5,7:8", range(9)) == numbers
    assert parse_ranges("0:5", numbers) == [0, 3, 4]
