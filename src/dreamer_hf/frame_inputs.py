"""Frames, actions and states as people have them, brought into the one form that the models compute with.

Shapes: B rows, T frames, H, W pixels, a action width, S state components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FrameInput = Any
"""Frames as every public function takes them:

- a tensor or NumPy array (B,T,3,H,W), of an integer type (0..255) or of floats in [0, 1], on any device;
- for a world of several cameras, likewise (B,T,V,3,H,W);
- a list of PIL images, one clip, which the video processor resizes to the model's frame size;
- `StartFrames`, or the output of the video processor.
"""

START_FRAMES_NAME = "start_frames.safetensors"
"""Name of the file with the start frames of a world, in its folder."""

ROUNDING = 1e-4
"""How far rounding may bring a float frame outside [0, 1]."""


def to_unit_range(frames: torch.Tensor) -> torch.Tensor:
    """Return frames as float32 in [0, 1]: integer frames are divided by 255, float frames only converted."""
    return frames.float() if frames.is_floating_point() else frames.contiguous().float() / 255


def prepare_frames(frames: FrameInput, config, device: torch.device, check_range: bool = True) -> torch.Tensor:
    """Return frames (B,T,3,H,W) as float32 in [0, 1] on a device.

    Args:
        frames: see `FrameInput`.
        config: the `DreamerTokenizerConfig` whose frame size they must have.
        device: the model's device.
        check_range: whether to check the values of float frames, which waits for a GPU that holds them. uint8 frames
            need no check.

    Raises:
        ValueError: frames of another shape or type, or values outside their range.
    """
    frames = checked_frames(frames, config)
    if frames.dtype != torch.uint8 and check_range and not (frames.is_meta or torch.compiler.is_compiling()):
        _check_range(frames)
    return to_unit_range(frames.to(device))


def checked_frames(frames: FrameInput, config, camera_names: list[str] | None = None) -> torch.Tensor:
    """Return frames as a tensor (B,T,3,H,W), with the type, device and values that they have.

    Args:
        frames: see `FrameInput`.
        config: the `DreamerTokenizerConfig`.
        camera_names: those of a world with several cameras, whose frames are (B,T,V,3,H,W).

    Raises:
        ValueError: frames of another shape, type or number of cameras.
    """
    frames = getattr(frames, "pixel_values_videos", frames)
    if isinstance(frames, (list, tuple)):
        frames = _stack_images(frames, config)
    if not isinstance(frames, torch.Tensor):
        frames = torch.tensor(np.asarray(frames))
    expected = (config.num_channels, *config.frame_size)
    if camera_names:
        expected = (len(camera_names), *expected)
        if frames.ndim == 5 or (frames.ndim == 6 and frames.shape[2] != expected[0]):
            raise ValueError(
                f"the world has the cameras {', '.join(camera_names)}: expected frames of shape (B, T, "
                f"{', '.join(map(str, expected))}), an image of each camera, got {tuple(frames.shape)}."
            )
    if frames.ndim != 2 + len(expected) or frames.shape[2:] != expected or frames.numel() == 0:
        raise ValueError(
            f"expected frames of shape (B, T, {', '.join(map(str, expected))}) with at least one row and one frame, "
            f"got {tuple(frames.shape)}; DreamerVideoProcessor resizes frames."
        )
    if frames.dtype == torch.bool or frames.is_complex():
        raise ValueError(f"expected frames of an integer or float type, got {frames.dtype}.")
    return frames


def _stack_images(images, config) -> torch.Tensor:
    """Return PIL images of one clip as uint8 (1,T,3,H,W), in the model's frame size."""
    if not images or not all(hasattr(image, "convert") for image in images):
        raise ValueError("expected a tensor or array of frames (B, T, 3, H, W), or a list of PIL images.")
    if len({image.size for image in images}) > 1:
        raise ValueError("expected PIL images of one size, the frames of one clip: resize them first.")
    from .video_processing_dreamer import DreamerVideoProcessor  # needs torchvision

    clip = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2)
    processor = DreamerVideoProcessor.for_tokenizer(config)
    return processor([clip], do_rescale=False, return_tensors="pt").pixel_values_videos


def _check_range(frames: torch.Tensor) -> None:
    is_float = frames.is_floating_point()
    values, high, slack = (frames, 1, ROUNDING) if is_float else (frames.long(), 255, 0)
    smallest, largest = (value.item() for value in values.detach().aminmax())
    if not (-slack <= smallest and largest <= high + slack):  # also refuses NaN
        raise ValueError(
            f"expected integer frames from 0 to 255 or float frames from 0 to 1, got {frames.dtype} frames from "
            f"{smallest:g} to {largest:g}."
        )


def action_limits(config, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the range of each action component in the training data, float32 (2,a): smallest and largest value.

    Infinite where `action_stats` has no `min` and `max`; class numbers always have a range.

    Args:
        config: a `DreamerDynamicsConfig`.
        device: where to put it.
    """
    stats, size = config.action_stats or {}, config.action_dim
    lows, highs = stats.get("min", [-np.inf] * size), stats.get("max", [np.inf] * size)
    classes = config.action_num_classes or [0] * size
    lows = [0 if count else low for low, count in zip(lows, classes)]
    highs = [count - 1 if count else high for high, count in zip(highs, classes)]
    return torch.tensor([lows, highs], dtype=torch.float32, device=device)


def prepare_actions(
    actions, action_mask, shape: tuple[int, ...], limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw actions, clipped to the range of the training data, and which frames have one.

    Args:
        actions: (*shape, a) tensor, array or list; None if no frame has an action.
        action_mask: (*shape) bool, False where a frame has no action; None if every frame has one.
        shape: leading dimensions.
        limits: (2,a), see `action_limits`; the result is on its device.

    Returns:
        float32 (*shape, a) and bool (*shape).

    Raises:
        ValueError: another shape, or an action that is not finite. (The values of actions that are on a GPU already
            are not looked at, since a step would have to wait for it.)
    """
    shape, device = tuple(shape), limits.device
    if actions is None:
        return torch.zeros(*shape, limits.shape[1], device=device), torch.zeros(shape, dtype=torch.bool, device=device)
    actions = _as_tensor(actions, torch.float32, (*shape, limits.shape[1]), "actions")
    if action_mask is None:
        values, action_mask = actions, torch.ones(shape, dtype=torch.bool, device=device)
    else:
        action_mask = _as_tensor(action_mask, torch.bool, shape, "action_mask")
        values = actions[action_mask.cpu()] if actions.device.type == "cpu" else actions
    if values.device.type == "cpu" and not values.isfinite().all():
        raise ValueError("expected finite actions, got NaN or infinity: mark frames without an action in action_mask.")
    return actions.to(device).clamp(limits[0], limits[1]), action_mask.to(device)


def prepare_states(
    states, state_mask, shape: tuple[int, ...], config, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return raw states, and which frames have one; None and None for a world without a state.

    Args:
        states: (*shape, S) tensor, array or list; None if no frame has a state.
        state_mask: (*shape) bool, False where a frame has no state; None if every frame has one.
        shape: leading dimensions.
        config: a `DreamerDynamicsConfig`.
        device: where to put them.

    Returns:
        float32 (*shape, S), 0 where a frame has no state, and bool (*shape).

    Raises:
        ValueError: another shape, a state that is not finite (not looked at on a GPU), or one that the world does not
            have.
    """
    shape = tuple(shape)
    if not config.state_dim:
        if states is not None:
            raise ValueError("the world has no state (state_dim=0): leave states and state_mask out.")
        return None, None
    if states is None:
        return torch.zeros(*shape, config.state_dim, device=device), torch.zeros(
            shape, dtype=torch.bool, device=device
        )
    names = f" ({', '.join(config.state_names)})" if config.state_names else ""
    states = _as_tensor(states, torch.float32, (*shape, config.state_dim), f"states{names}")
    if state_mask is None:
        state_mask = torch.ones(shape, dtype=torch.bool)
    state_mask = _as_tensor(state_mask, torch.bool, shape, "state_mask").to(states.device)
    states = states.masked_fill(~state_mask[..., None], 0)
    if states.device.type == "cpu" and not states.isfinite().all():
        raise ValueError("expected finite states, got NaN or infinity: mark frames without a state in state_mask.")
    return states.to(device), state_mask.to(device)


def _as_tensor(values, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(values, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected {name} of shape {shape}, got something else ({error}).") from error
    if tensor.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}, got {tuple(tensor.shape)}.")
    return tensor


def is_start(frames: FrameInput) -> bool:
    """Return whether these are `StartFrames`, which bring their actions and mask."""
    return hasattr(frames, "action_mask")


def context_actions(frames: FrameInput, actions, action_mask) -> tuple:
    """Return actions and mask of context frames: the given ones, or those of `StartFrames`.

    Raises:
        ValueError: there are both.
    """
    if not is_start(frames):
        return actions, action_mask
    if actions is not None or action_mask is not None:
        raise ValueError("expected no actions with StartFrames, which bring their own: leave actions and mask out.")
    return frames.actions, frames.action_mask


def context_states(frames: FrameInput, states, state_mask, config) -> tuple:
    """Return states and mask of context frames: the given ones, or those of `StartFrames` for a world with a state.

    Raises:
        ValueError: there are both.
    """
    if not is_start(frames):
        return states, state_mask
    if states is not None or state_mask is not None:
        raise ValueError("expected no states with StartFrames, which bring their own: leave states and mask out.")
    if not config.state_dim:  # They may be saved for several worlds.
        return None, None
    return getattr(frames, "states", None), getattr(frames, "state_mask", None)


__all__ = [
    "FrameInput",
    "action_limits",
    "checked_frames",
    "context_actions",
    "context_states",
    "is_start",
    "prepare_actions",
    "prepare_frames",
    "prepare_states",
    "to_unit_range",
]
