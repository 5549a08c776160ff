"""The video processor, which brings frames to the size and scale of the models."""

from transformers.image_utils import PILImageResampling
from transformers.video_processing_utils import BaseVideoProcessor


class DreamerVideoProcessor(BaseVideoProcessor):
    """Video processor that resizes uint8 frames and scales them to [0, 1].

    Videos are lists, arrays or tensors (T,H,W,3) or (T,3,H,W). Frames are stretched to `size`; pad them to its aspect
    ratio first if that matters. The models normalize inside (`config.image_mean`, `config.image_std`), so this class
    does not.

    ```python
    processor = DreamerVideoProcessor.from_pretrained("path-or-repo")
    frames = processor(videos, return_tensors="pt").pixel_values_videos   # float32 (B, T, 3, H, W)
    ```
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = False
    do_sample_frames = False
    model_input_names = ["pixel_values_videos"]

    @classmethod
    def for_tokenizer(cls, config) -> "DreamerVideoProcessor":
        """Return the processor for the frame size of a `DreamerTokenizerConfig`."""
        height, width = config.frame_size
        return cls(size={"height": height, "width": width})


__all__ = ["DreamerVideoProcessor"]
