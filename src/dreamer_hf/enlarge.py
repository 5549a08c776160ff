"""A trained world for larger frames, and with a state: where to continue training from.

The first layer of an encoder is linear, and so is reducing a frame. Their product encodes larger frames exactly as the
old encoder encodes the reduced ones, so that the latents, and with them the dynamics model, stay what they were. Only
the refiner, which sharpens the enlarged frames of the decoder, has to be trained.
"""

import numpy as np
import torch

from .configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig
from .modeling_dreamer_dynamics import DreamerDynamicsModel
from .modeling_dreamer_tokenizer import DreamerTokenizerModel


def averaging(small: int, large: int) -> torch.Tensor:
    """Return the matrix (small, large) that reduces a line of pixels by averaging areas, float64."""
    edges = np.linspace(0, large, small + 1)
    left, right = np.arange(large)[None], np.arange(1, large + 1)[None]
    overlap = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
    return torch.from_numpy(overlap.clip(0) * small / large)


@torch.no_grad()
def enlarged_tokenizer(
    tokenizer: DreamerTokenizerModel, image_size: int, refiner_channels: int = 16, seed: int = 0
) -> DreamerTokenizerModel:
    """Return a tokenizer of larger square frames with the same latents of what they show.

    `encode` of the result gives for a frame what `tokenizer.encode` gives for the frame averaged down to its size.
    `decode` gives the old frames, enlarged linearly, until the refiner is trained.

    Args:
        tokenizer: the trained tokenizer, without a draft or a refiner.
        image_size: side of the frames in pixels; a multiple of the number of patches along the old side.
        refiner_channels: `refiner_channels` of the result.
        seed: seed of the new weights.

    Raises:
        ValueError: the sizes do not fit.
    """
    old = tokenizer.config
    rows, columns = old.grid_size
    if rows != columns or image_size % rows or image_size <= old.frame_size[0]:
        raise ValueError(
            f"expected an image_size above {old.frame_size[0]} that is a multiple of {rows} for square frames, got "
            f"{image_size}."
        )
    changed = {"image_size": image_size, "patch_size": image_size // rows, "draft_patch_size": old.patch_size}
    torch.manual_seed(seed)
    fields = _fields(old) | changed | {"refiner_channels": refiner_channels}
    new = DreamerTokenizerModel(DreamerTokenizerConfig(**fields)).to(tokenizer.dtype)
    state = new.state_dict() | tokenizer.state_dict()
    weight = state["encoder.patch_embed.weight"]
    reduce = averaging(old.patch_size, changed["patch_size"]).to(weight)
    state["encoder.patch_embed.weight"] = torch.einsum("dcij,ix,jy->dcxy", weight, reduce, reduce)
    new.load_state_dict(state)
    return new


@torch.no_grad()
def dynamics_with_state(
    dynamics: DreamerDynamicsModel, state_dim: int, seed: int = 0, **fields
) -> DreamerDynamicsModel:
    """Return a dynamics model that also has a state, and predicts the same latents as before.

    The state token takes the place of the first register token: it starts as that one, and the state enters and
    leaves it through new projections, the first of which is zero. No token changes its position.

    Args:
        dynamics: a model without a state that has a register token.
        state_dim: number of components of the state.
        seed: seed of the new weights.
        fields: further fields of the config, such as `state_stats`.

    Raises:
        ValueError: the model has a state, or no register token.
    """
    old = dynamics.config
    if old.state_dim or not old.num_register_tokens:
        raise ValueError("expected a dynamics model without a state and with a register token to replace.")
    torch.manual_seed(seed)
    changed = {"state_dim": state_dim, "num_register_tokens": old.num_register_tokens - 1} | fields
    new = DreamerDynamicsModel(DreamerDynamicsConfig(**_fields(old) | changed)).to(dynamics.dtype)
    state, kept = new.state_dict(), dynamics.state_dict()
    state |= {name: value for name, value in kept.items() if name in state and value.shape == state[name].shape}
    state["register_tokens"] = kept["register_tokens"][1:]
    state["state_coder.state_tokens"] = kept["register_tokens"][:1]
    state["state_coder.state_proj.weight"].zero_()
    new.load_state_dict(state)
    new.generation_config = dynamics.generation_config
    return new


def _fields(config) -> dict:
    """Return the fields of a config that its class takes."""
    return {name: value for name, value in config.to_dict().items() if name not in ("architectures", "dtype")}


__all__ = ["averaging", "dynamics_with_state", "enlarged_tokenizer"]
