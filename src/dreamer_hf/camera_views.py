"""The cameras of a world: one tokenizer for all, whose latents stand next to each other.

A world of V cameras has frames (B,T,V,3,H,W) and latents (B,T,V*N_z,d_z), those of the first camera first. A world of
one camera has frames (B,T,3,H,W). The tokenizer sees every camera as a video: (B*V,T,3,H,W), row b*V + v for camera v.

Shapes: B rows, T frames, V cameras, H, W pixels, N_z latent tokens of the tokenizer, d_z latent channels.
"""

from __future__ import annotations

import torch


def split_frames(frames: torch.Tensor) -> torch.Tensor:
    """Return frames (B,T,V,3,H,W) as videos (B*V,T,3,H,W); those of one camera, (B,T,3,H,W), stay unchanged."""
    return frames if frames.ndim == 5 else frames.transpose(1, 2).flatten(0, 1)


def join_frames(videos: torch.Tensor, num_cameras: int) -> torch.Tensor:
    """Return videos (B*V,T,3,H,W) as frames (B,T,V,3,H,W); those of one camera are returned unchanged."""
    return videos if num_cameras == 1 else videos.unflatten(0, (-1, num_cameras)).transpose(1, 2)


def tile_cameras(frames: torch.Tensor) -> torch.Tensor:
    """Return frames (..., T,V,3,H,W) with the cameras side by side, (..., T,3,H,V*W), to look at.

    Those of one camera have no axis V: frames (T,3,H,W) and (B,T,3,H,W) are returned unchanged, so (T,V,3,H,W) of a
    single row must come as (1,T,V,3,H,W).
    """
    return frames if frames.ndim < 6 else frames.movedim(-4, -2).flatten(-2)


def encode_cameras(tokenizer, frames, past_key_values=None, **kwargs):
    """Encode frames of one or several cameras; the result is that of `DreamerTokenizerModel.encode`.

    Args:
        tokenizer: the `DreamerTokenizerModel`.
        frames: tensor (B,T,V,3,H,W), or any `FrameInput` of one camera.
        past_key_values: encoder cache of B*V rows.
        kwargs: as in `encode`.
    """
    if not isinstance(frames, torch.Tensor) or frames.ndim != 6:
        return tokenizer.encode(frames, past_key_values, **kwargs)
    output = tokenizer.encode(split_frames(frames), past_key_values, **kwargs)
    output.latents = output.latents.unflatten(0, (-1, frames.shape[2])).transpose(1, 2).flatten(2, 3)
    return output


def decode_cameras(tokenizer, latents: torch.Tensor, past_key_values=None) -> torch.Tensor:
    """Decode latents (B,T,V*N_z,d_z) into frames in [0, 1], (B,T,V,3,H,W), or (B,T,3,H,W) for one camera.

    Args:
        tokenizer: the `DreamerTokenizerModel`, whose number of latent tokens tells V.
        latents: the latents.
        past_key_values: decoder cache of B*V rows.
    """
    tokens = tokenizer.config.num_latent_tokens
    num_cameras = latents.shape[2] // tokens
    if num_cameras > 1:
        latents = latents.unflatten(2, (num_cameras, tokens)).transpose(1, 2).flatten(0, 1)
    frames = tokenizer.decode(latents, past_key_values=past_key_values).pixel_values_videos
    return join_frames(frames, num_cameras)


def camera_rows(rows: torch.Tensor, num_cameras: int) -> torch.Tensor:
    """Return the rows of the tokenizer's caches that belong to rows of a world."""
    if num_cameras == 1:
        return rows
    return (rows[:, None] * num_cameras + torch.arange(num_cameras, device=rows.device)).flatten()


__all__ = ["camera_rows", "decode_cameras", "encode_cameras", "join_frames", "split_frames", "tile_cameras"]
