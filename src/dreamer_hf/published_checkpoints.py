"""Conversion of the published Dreamer-V4 `.pt` checkpoints (Hub repository `Rooholla/dreamer-v4`) into our models.

The files are pickles and are only read with `weights_only=True`. Their state dict is the value of the key `"model"`,
or the file itself. Keys may have prefixes that `torch.compile` and data-parallel training leave, and older files have
one key in another spelling. What a file does not store is inferred from shapes or given by the caller.

The tensors differ from ours in two ways: queries, keys and values are separate, and rotary embeddings rotate adjacent
channel pairs (2i, 2i+1), where ours rotate the two halves of a head. So the rows of W_q and W_k are permuted inside
each head.
"""

import pickle
import re
import zipfile
import zlib
from pathlib import Path

import torch

from .configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerTransformerConfig
from .modeling_dreamer_dynamics import DreamerDynamicsModel
from .modeling_dreamer_tokenizer import DreamerTokenizerModel

PUBLISHED_HEAD_DIM = 64
"""The head width of every published file; the number of heads itself is not stored."""
PUBLISHED_CONTEXT_LENGTH = 32
"""The window of the published models in frames; it is not stored either."""

StateDict = dict[str, torch.Tensor]
UNREADABLE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError)
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error)


def read_state_dict(path: str | Path) -> StateDict:
    """Read a `.pt` file into a state dict without the prefixes and older spellings of its keys.

    Raises:
        ValueError: if the file is not a checkpoint, or holds anything but tensors and plain values.
        FileNotFoundError: if there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a published .pt checkpoint.")
    try:
        _check_crcs(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, *ZIP_ERRORS) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is not a checkpoint that can be read safely ({reason}): download it again."
        ) from error
    content = content.get("model", content) if isinstance(content, dict) else content
    items = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(
            f"{path} holds no named tensors under 'model' or at its top level: give a published .pt checkpoint."
        )
    return {_plain_key(key): tensor for key, tensor in tensors.items()}


def _check_crcs(path: str | Path) -> None:
    """Raise `zipfile.BadZipFile` if a member of the file is damaged: `torch.load` does not compare checksums."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")


def _plain_key(key: str) -> str:
    key = re.sub(r"^(?:(?:_orig_mod|module)\.)+", "", key)
    key = re.sub(r"^model\.(?:(?:_orig_mod|module)\.)*", "", key)
    return key.replace("diffuion_embedder", "diffusion_embedder")


class PublishedReader:
    """Reader of a published state dict, which takes tensors by name and shape and records what is wrong.

    Every tensor must be taken with the shape that the architecture expects. `finish` names all those that are missing,
    left over, of the wrong shape or not finite.

    Args:
        path: file of the state dict, for messages.
        state_dict: its tensors, from `read_state_dict`.
    """

    # Derived tensors that some files contain.
    DERIVED = re.compile(r"^(encoder|decoder)\.spatial_mask$")

    def __init__(self, path: str | Path, state_dict: StateDict):
        self.path = path
        self.left = {key: tensor for key, tensor in state_dict.items() if not self.DERIVED.match(key)}
        self.missing: list[str] = []
        self.misshapen: list[str] = []
        self.not_finite: list[str] = []

    def shape(self, key: str, num_axes: int) -> tuple[int, ...]:
        """Return the shape of a tensor from which sizes are inferred.

        Raises:
            ValueError: if the file does not hold it, or it has another number of axes.
        """
        if key not in self.left:
            found = ", ".join(sorted(self.left)[:4])
            raise ValueError(f"{self.path} has no tensor '{key}' (it has {found}, ...): give the file of this model.")
        shape = tuple(self.left[key].shape)
        if len(shape) != num_axes:
            raise ValueError(f"expected '{key}' of {self.path} to have {num_axes} axes, got shape {shape}.")
        return shape

    def count_groups(self, prefix: str) -> int:
        """Return the number of layer groups, whose tensors start with `prefix` and a number."""
        pattern = re.compile(rf"^{re.escape(prefix)}(\d{{1,9}})\.")
        groups = {int(match[1]) for key in self.left if (match := pattern.match(key))}
        return max(groups, default=0) + 1

    def take(self, key: str, *shape: int) -> torch.Tensor:
        """Take a tensor that must have this shape; zeros replace a faulty one until `finish` reports it."""
        tensor = self.left.pop(key, None)
        if tensor is None:
            self.missing.append(key)
        elif tensor.is_meta or tensor.layout != torch.strided:
            self.misshapen.append(f"{key} without plain values")
        elif tuple(tensor.shape) != shape or not tensor.is_floating_point():
            self.misshapen.append(f"{key} {tensor.dtype} {tuple(tensor.shape)} instead of {shape}")
        elif not tensor.isfinite().all():
            self.not_finite.append(key)
        else:
            return tensor.float()
        return torch.zeros(shape)

    def finish(self) -> None:
        """Check that every tensor was taken.

        Raises:
            ValueError: if tensors are missing, misshapen, not finite or left over; the sentence names them.
        """
        faults = {
            "missing": self.missing,
            "of the wrong shape": self.misshapen,
            "with NaN or infinite values": self.not_finite,
            "left over": sorted(self.left),
        }
        found = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
        if found:
            raise ValueError(
                f"{self.path} does not fit this model, with tensors {'; '.join(found)}: "
                "check that it is the right file and that the number of heads is right."
            )


def _some(names: list[str], limit: int = 12) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _halves_from_pairs(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Permute the rows of (H*h, D) from adjacent rotary pairs to half-split ones, inside each head."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _convert_layer(reader: PublishedReader, source: str, config: DreamerTransformerConfig) -> StateDict:
    """Return the tensors of one layer under our names."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    key_width = config.num_key_value_heads * head
    attention, mlp = f"{source}attn.attn.", f"{source}ffn."
    query = _halves_from_pairs(reader.take(f"{attention}W_q.weight", width, width), head)
    key = _halves_from_pairs(reader.take(f"{attention}W_k.weight", key_width, width), head)
    value = reader.take(f"{attention}W_v.weight", key_width, width)
    # The activation is applied to the published `up`, which is called gate here.
    gate, up = reader.take(f"{mlp}up.weight", inner, width), reader.take(f"{mlp}gate.weight", inner, width)
    converted = {
        "self_attn.qkv_proj.weight": torch.cat([query, key, value]),
        "self_attn.o_proj.weight": reader.take(f"{attention}W_o.weight", width, width),
        "input_layernorm.weight": reader.take(f"{source}norm1.weight", width),
        "post_attention_layernorm.weight": reader.take(f"{source}norm2.weight", width),
        "mlp.gate_up_proj.weight": torch.cat([gate, up]),
        "mlp.down_proj.weight": reader.take(f"{mlp}down.weight", width, inner),
    }
    if config.qk_norm:
        heads = config.num_attention_heads
        converted["self_attn.query_scale"] = reader.take(f"{attention}g", 1, heads, 1, 1).flatten()
    return converted


def _convert_layers(reader: PublishedReader, source: str, target: str, config, num_layers: int) -> StateDict:
    converted = {}
    for index in range(num_layers):
        group, layer = divmod(index, config.time_every)
        tensors = _convert_layer(reader, f"{source}layers.{group}.layers.{layer}.", config)
        converted |= {f"{target}layers.{index}.{name}": tensor for name, tensor in tensors.items()}
    return converted


def _attention_fields(reader: PublishedReader, first_layer: str, num_attention_heads: int | None) -> dict:
    """Return heads and widths of the transformer, from the shapes of its first layer."""
    if num_attention_heads is not None and num_attention_heads < 1:
        raise ValueError(f"expected a positive number of heads, got {num_attention_heads}.")
    width = reader.shape(f"{first_layer}attn.attn.W_q.weight", 2)[0]
    scale = reader.left.get(f"{first_layer}attn.attn.g")
    heads = num_attention_heads or (scale.numel() if scale is not None else max(1, width // PUBLISHED_HEAD_DIM))
    key_width = reader.shape(f"{first_layer}attn.attn.W_k.weight", 2)[0]
    if width % heads or key_width % (width // heads):
        raise ValueError(
            f"{reader.path} has attention of width {width} (keys {key_width}), which {heads} heads cannot share: "
            "give the number of heads it was trained with."
        )
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": key_width // (width // heads),
        "intermediate_size": reader.shape(f"{first_layer}ffn.up.weight", 2)[0],
        "qk_norm": scale is not None,
    }


def _load(model, converted: StateDict):
    model.load_state_dict(converted)
    return model.eval()


def convert_tokenizer(
    path: str | Path, num_attention_heads: int | None = None, context_length: int = PUBLISHED_CONTEXT_LENGTH
) -> DreamerTokenizerModel:
    """Convert a published tokenizer file into our model, in float32.

    Args:
        path: the `.pt` file.
        num_attention_heads: number of heads, which the file does not store. Defaults to width / 64, or to the number
            of QK-norm scales.
        context_length: window of the time layers in frames, which the file does not store. Defaults to 32.

    Raises:
        ValueError: if the file is not a checkpoint, or does not fit; the sentence names the tensors.
        FileNotFoundError: if there is no such file.
    """
    reader = PublishedReader(path, read_state_dict(path))
    _, channels, patch, _ = reader.shape("patchifier.cnn.weight", 4)
    patches = reader.shape("decoder.learned_modality_tokens", 4)[2]
    if round(patches**0.5) ** 2 != patches:
        raise ValueError(f"expected a square number of patches in {path}, got {patches}: its images are not square.")
    values = {
        **_attention_fields(reader, "encoder.layers.0.layers.0.", num_attention_heads),
        "image_size": patch * round(patches**0.5),
        "patch_size": patch,
        "num_channels": channels,
        "num_encoder_layers": 4 * reader.count_groups("encoder.layers."),
        "num_decoder_layers": 4 * reader.count_groups("decoder.layers."),
        "num_latent_tokens": reader.shape("encoder.learned_latent_tokens", 4)[2],
        "latent_dim": reader.shape("encoder.output_proj.weight", 2)[0],
        "context_length": context_length,
    }
    config = DreamerTokenizerConfig.from_dict(values)
    converted = _tokenizer_tensors(reader, config)
    reader.finish()
    return _load(DreamerTokenizerModel(config), converted)


def _tokenizer_tensors(reader: PublishedReader, config: DreamerTokenizerConfig) -> StateDict:
    width, latents, latent_dim = config.hidden_size, config.num_latent_tokens, config.latent_dim
    patch, channels, patches = config.patch_size, config.num_channels, config.num_patches
    pixels = channels * patch * patch
    take = reader.take
    converted = {
        "encoder.patch_embed.weight": take("patchifier.cnn.weight", width, channels, patch, patch),
        "encoder.patch_embed.bias": take("patchifier.cnn.bias", width),
        "encoder.mask_token": take("masker.mask_token", 1, 1, 1, width).flatten(),
        "encoder.latent_tokens": take("encoder.learned_latent_tokens", 1, 1, latents, width)[0, 0],
        "encoder.latent_proj.weight": take("encoder.output_proj.weight", latent_dim, width),
        "encoder.latent_proj.bias": take("encoder.output_proj.bias", latent_dim),
        "decoder.latent_embed.weight": take("decoder.input_proj.weight", width, latent_dim),
        "decoder.latent_embed.bias": take("decoder.input_proj.bias", width),
        "decoder.patch_queries": take("decoder.learned_modality_tokens", 1, 1, patches, width)[0, 0],
        "decoder.pixel_head.weight": take("image_head.conv.weight", pixels, width, 1, 1).flatten(1),
        "decoder.pixel_head.bias": take("image_head.conv.bias", pixels),
    }
    converted |= _convert_layers(reader, "encoder.", "encoder.transformer.", config, config.num_encoder_layers)
    converted |= _convert_layers(reader, "decoder.", "decoder.transformer.", config, config.num_decoder_layers)
    return converted


def convert_dynamics(
    path: str | Path,
    num_latent_tokens: int,
    num_attention_heads: int | None = None,
    context_length: int = PUBLISHED_CONTEXT_LENGTH,
    fps: float | None = None,
    action_offset: int = 0,
) -> DreamerDynamicsModel:
    """Convert a published dynamics file into our model, in float32.

    Args:
        path: the `.pt` file.
        num_latent_tokens: number of latent tokens of a frame, which the file does not store (the tokenizer's).
        num_attention_heads, context_length: as in `convert_tokenizer`.
        fps: frames per second of the training data. Defaults to that of the config.
        action_offset: alignment of actions. Defaults to 0: frame t has the action recorded with it.

    Raises:
        ValueError: if the file is not a checkpoint, or does not fit; the sentence names the tensors.
        FileNotFoundError: if there is no such file.
    """
    reader = PublishedReader(path, read_state_dict(path))
    values = {
        **_attention_fields(reader, "layers.0.layers.0.", num_attention_heads),
        "num_hidden_layers": 4 * reader.count_groups("layers."),
        "num_latent_tokens": num_latent_tokens,
        "latent_dim": reader.shape("latent_projector.weight", 2)[1],
        "num_register_tokens": reader.shape("register_tokens", 4)[2],
        "num_action_tokens": reader.shape("action_tokens", 4)[2],
        "action_dim": reader.shape("action_proj.weight", 2)[1],
        "num_signal_levels": reader.shape("diffusion_embedder.embeddings", 2)[0],
        "context_length": context_length,
        "fps": fps,
        "action_offset": action_offset,
    }
    config = DreamerDynamicsConfig.from_dict(values)
    converted = _dynamics_tensors(reader, config)
    reader.finish()
    return _load(DreamerDynamicsModel(config), converted)


def _dynamics_tensors(reader: PublishedReader, config: DreamerDynamicsConfig) -> StateDict:
    width, latent_dim, levels = config.hidden_size, config.latent_dim, config.num_signal_levels
    registers, actions = config.num_register_tokens, config.num_action_tokens
    take = reader.take
    converted = {
        "step_size_embedding.weight": take("shortcut_embedder.embeddings", levels.bit_length(), width),
        "signal_level_embedding.weight": take("diffusion_embedder.embeddings", levels, width),
        "control_proj.weight": take("diff_control_proj.weight", width, 2 * width),
        "register_tokens": take("register_tokens", 1, 1, registers, width)[0, 0],
        "action_encoder.action_tokens": take("action_tokens", 1, 1, actions, width)[0, 0],
        "action_encoder.action_proj.weight": take("action_proj.weight", width, config.action_dim),
        "action_encoder.action_proj.bias": take("action_proj.bias", width),
        "latent_embed.weight": take("latent_projector.weight", width, latent_dim),
        "latent_head.weight": take("output_projector.weight", latent_dim, width),
    }
    return converted | _convert_layers(reader, "", "transformer.", config, config.num_hidden_layers)
