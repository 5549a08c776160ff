"""The keys of a training run, and how a preset, a YAML file and the command line give them.

Precedence, lowest first: the defaults below, `--preset`, `--config`, the flags themselves. All of them pass through one
parser, so that a wrong key or value is told in the same words wherever it stands.
"""

import dataclasses
import difflib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from transformers import HfArgumentParser

PRESETS = Path(__file__).parent / "presets"
"""Folder of the presets."""

PUBLIC_TEXT = ("preset", "hub_model_id")
"""Keys of free text that may be shown to anybody; any other may hold a path of this machine."""


def _key(default, help: str):
    return field(default=default, metadata={"help": help})


FREEZABLE_PARTS = ("space", "time", "latents", "actions", "control")
"""Parts of a dynamics model: its layers over space and over time, the projections into and out of the latents, the
action encoder, and what tells it of signal level and step size (with the registers)."""


@dataclass
class TrainerArguments:
    """What every training run needs, whatever it trains."""

    data_dir: str | None = _key(None, "folder of HDF5 shards (required)")
    output_dir: str | None = _key(None, "folder for metrics, checkpoints and the final model (required)")
    preset: str | None = _key(None, "name of a preset, such as pusht-tiny: sets model and training keys")
    config: str | None = _key(None, "YAML file with these same keys; it overrides the preset, flags override both")

    pretrained: str | None = _key(
        None, "start from the weights of this model, or of this world's part (folder or repository), not from new ones"
    )
    max_train_steps: int = _key(10_000, "optimizer steps")
    max_train_minutes: float | None = _key(
        None, "stop earlier, after this many minutes of training, with the learning rate annealed by then"
    )
    per_device_batch_size: int = _key(8, "rows (windows of frames) of one batch on one device")
    gradient_accumulation_steps: int = _key(1, "batches of one optimizer step")
    sequence_length: int = _key(16, "frames of a window")
    stride: int = _key(1, "frames between the starts of neighboring windows")
    long_sequence_length: int | None = _key(None, "frames of the long windows, if some batches are to have such")
    long_fraction: float = _key(0.1, "share of the long windows' batches among those of video")
    image_fraction: float = _key(0.0, "share of batches whose frames are separate images, to learn first frames")

    optimizer: Literal["adamw", "muon"] = _key("adamw", "muon: hidden matrices with Muon, everything else with AdamW")
    learning_rate: float = _key(3e-4, "peak learning rate of AdamW")
    muon_learning_rate: float = _key(1e-3, "peak learning rate of Muon, on the scale of AdamW's")
    latent_learning_rate_ratio: float = _key(
        1.0, "learning rate of the projections into and out of the latents, as a part of the others'"
    )
    lr_warmup_steps: int = _key(100, "steps of linear warm-up")
    min_learning_rate_ratio: float = _key(0.1, "where the cosine ends, as a part of the peak")
    weight_decay: float = _key(0.01, "decoupled weight decay of matrices (norms, biases and embeddings have none)")
    adam_beta1: float = _key(0.9, "AdamW's first decay")
    adam_beta2: float = _key(0.99, "AdamW's second decay")
    adam_epsilon: float = _key(1e-8, "AdamW's epsilon")
    max_grad_norm: float = _key(1.0, "gradients are clipped to this norm")
    ema_decay: float = _key(0.0, "decay of the averaged weights that are evaluated and saved; 0 keeps no average")

    mixed_precision: Literal["no", "fp16", "bf16"] | None = _key(None, "as `accelerate launch` has it, if not given")
    gradient_checkpointing: bool = _key(False, "recompute activations in the backward pass: less memory, more time")
    torch_compile: bool = _key(
        False, "compile the layers, which pays on a GPU; a resumed run is then the same to rounding"
    )
    dataloader_num_workers: int = _key(0, "processes that read windows")
    seed: int = _key(0, "of the initial weights, the data order and every draw of every step")
    train_fraction: float = _key(0.9, "share of the episodes that are trained on; the others are held out")
    split_seed: int = _key(42, "which episodes are held out")

    logging_steps: int = _key(10, "steps between lines of metrics.jsonl")
    eval_steps: int = _key(500, "steps between evaluations on held-out windows; 0: only at the end")
    eval_windows: int = _key(32, "held-out windows of an evaluation")
    lpips_net: Literal["vgg", "alex", "none"] = _key(
        "vgg", "trunk of LPIPS, the perceptual loss and measure, used where its weights are on this machine"
    )
    checkpointing_steps: int = _key(500, "steps between resumable checkpoints; 0: only at the end")
    checkpoints_total_limit: int | None = _key(None, "keep only the newest so many checkpoints")
    resume_from_checkpoint: str | None = _key(None, "`latest`, or the path of a checkpoint-<step> folder")
    report_to: Literal["tensorboard", "wandb", "none"] = _key("none", "tracker beside metrics.jsonl")
    push_to_hub: bool = _key(False, "upload the final folder, without checkpoints")
    hub_model_id: str | None = _key(None, "repository to upload to, such as name/pusht-world")

    def __post_init__(self):
        for name in ("data_dir", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: give it as a flag or in the --config file.")
        for name in self._positive_keys():
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} is impossible: give a number above 0.")
        for name in ("ema_decay", "long_fraction", "image_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is impossible: give at least 0 and below 1.")
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("--push_to_hub needs --hub_model_id: name the repository to upload to.")
        if self.hub_model_id and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub_model_id):
            raise ValueError(
                f"--hub_model_id {self.hub_model_id} is no repository: give owner and name, such as me/pusht-world."
            )

    @staticmethod
    def _positive_keys() -> tuple[str, ...]:
        return (
            "max_train_steps",
            "per_device_batch_size",
            "gradient_accumulation_steps",
            "sequence_length",
            "stride",
            "learning_rate",
            "muon_learning_rate",
            "latent_learning_rate_ratio",
            "max_grad_norm",
            "logging_steps",
            "eval_windows",
        )

    def public_values(self) -> dict:
        """The keys and values that trackers, cards and uploads may show: none that may name a private folder."""
        texts = {f.name for f in dataclasses.fields(self) if f.type in (str, str | None)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in texts or k in PUBLIC_TEXT}

    def adaptation_values(self) -> dict:
        """The keys that say what of a saved model is trained, where given: a resumed run must have the same."""
        return {}

    @classmethod
    def model_keys(cls) -> list[str]:
        """The keys that are fields of the model's config."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata.get("help", "").startswith("model: ")]

    def model_values(self) -> dict:
        """The model keys that were given, ready for the config class; the rest keep the config's defaults."""
        values = {name: getattr(self, name) for name in self.model_keys()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class TokenizerArguments(TrainerArguments):
    """Keys of `examples/train_tokenizer.py`."""

    image_stats: Literal["data", "default"] = _key(
        "data", "scale pixels by the data's mean and deviation (small tokenizers start with it), or to [-1, 1]"
    )
    max_latent_noise: float = _key(
        0.0, "deviation up to which noise is added to the latents before decoding: neighbors then decode alike"
    )
    pyramid_weight: float = _key(
        0.0, "weight of the squared error in whitened colors on all scales (small things count); the paper has none"
    )
    freeze_encoder: bool = _key(
        False, "leave the --pretrained encoder as it is: worlds that know its latents stay valid"
    )

    hidden_size: int | None = _key(None, "model: width of a token")
    intermediate_size: int | None = _key(None, "model: width of the MLP")
    num_attention_heads: int | None = _key(None, "model: attention heads")
    num_key_value_heads: int | None = _key(None, "model: key-value heads")
    num_encoder_layers: int | None = _key(None, "model: layers of the encoder")
    num_decoder_layers: int | None = _key(None, "model: layers of the decoder")
    time_every: int | None = _key(None, "model: layers of a group, the last one over time")
    context_length: int | None = _key(None, "model: frames that a time layer sees")
    patch_size: int | None = _key(None, "model: pixels of a patch's side")
    num_latent_tokens: int | None = _key(None, "model: latent tokens of a frame")
    latent_dim: int | None = _key(None, "model: channels of a latent token")
    latent_group_size: int | None = _key(None, "model: tokens of the bottleneck that make up one latent token")
    spatial_latents: bool | None = _key(
        None, "model: a token of the bottleneck for every cell of a grid over the frame, not in the paper"
    )
    max_mask_ratio: float | None = _key(None, "model: in training, patches are masked with a probability up to this")
    qk_norm: bool | None = _key(None, "model: normalize queries and keys")
    attn_logit_softcapping: float | None = _key(None, "model: cap of the attention logits")
    initializer_range: float | None = _key(None, "model: deviation of the initial weights")

    def __post_init__(self):
        super().__post_init__()
        if self.freeze_encoder and not self.pretrained:
            raise ValueError("--freeze_encoder keeps a saved encoder: give its model as --pretrained.")
        for name in ("max_latent_noise", "pyramid_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is impossible: give 0 or more.")


@dataclass
class DynamicsArguments(TrainerArguments):
    """Keys of `examples/train_dynamics.py`."""

    tokenizer: str | None = _key(
        None, "folder or repository of the frozen tokenizer (required, unless --pretrained is a world, which has one)"
    )
    cache_latents: bool = _key(False, "encode all episodes once and keep their latents in memory")
    context_level_fraction: float = _key(
        0.0,
        "without past_copies: share of the frames shown at the level of a rollout's past; small models learn actions "
        "sooner with it",
    )
    num_context_frames: int = _key(
        0, "first frames of a window always shown so, where context_level_fraction or past_copies is not 0"
    )
    context_loss: bool = _key(
        True, "frames shown so cost something, too; without, all training goes into what is dreamt"
    )
    past_copies: int = _key(
        0,
        "n: show a window's past once, as rollouts do, and denoise each of its frames n times beside it, at 1 + n times "
        "the cost; 0: a frame's past is as noisy as it happens to be, as in the paper",
    )
    pure_noise_fraction: float = _key(
        0.0, "share of the copies' frames that start from pure noise whatever was drawn: there the actions matter most"
    )
    own_past_fraction: float = _key(
        0.0,
        "with past_copies: share of the windows whose past, from a drawn frame on, is what the model itself predicts, "
        "so that it learns to go on from its own errors; one pass more for these",
    )
    bootstrap_fraction: float = _key(
        0.25,
        "share of the rows that learn coarse steps, at three passes instead of one; 0 is plain flow matching, which "
        "knows the finest step only",
    )
    bootstrap_start_step: int = _key(0, "steps before the first such row")
    ramp_weight: bool = _key(True, "weigh frames by 0.9 times their signal level plus 0.1, as the paper does")
    num_start_frames: int = _key(8, "held-out starts that are stored with the model, for playing")

    lora_rank: int | None = _key(None, "train LoRA adapters of this rank; the --pretrained model under them stays")
    lora_alpha: int | None = _key(None, "adapters are scaled by lora_alpha / lora_rank; twice the rank, if not given")
    reset_action_embedding: bool = _key(
        False, "give the --pretrained model a new action encoder: its width, names and statistics follow the data"
    )
    freeze: list[str] | None = field(
        default=None,
        metadata={
            "help": "parts of the --pretrained model to leave as they are: space, time (the layers), "
            "latents, actions (the projections), control (signal level, step size, registers)"
        },
    )

    hidden_size: int | None = _key(None, "model: width of a token")
    intermediate_size: int | None = _key(None, "model: width of the MLP")
    num_attention_heads: int | None = _key(None, "model: attention heads")
    num_key_value_heads: int | None = _key(None, "model: key-value heads")
    num_hidden_layers: int | None = _key(None, "model: layers")
    time_every: int | None = _key(None, "model: layers of a group, the last one over time")
    context_length: int | None = _key(None, "model: frames that a time layer sees")
    num_register_tokens: int | None = _key(None, "model: learned extra tokens of a frame")
    num_action_tokens: int | None = _key(None, "model: tokens that carry the action")
    action_num_classes: list[int] | None = field(
        default=None, metadata={"help": "model: per action component, its number of classes, 0 if it is continuous"}
    )
    num_signal_levels: int | None = _key(None, "model: signal levels of the training grid, a power of two")
    prediction: Literal["x", "v"] | None = _key(
        None, "model: x, clean latents (the paper), or v, velocities, whose error is then what is minimized"
    )
    action_offset: int | None = _key(
        None, "model: 1: frames go with the command that led to them; 0: with the action recorded beside them"
    )
    qk_norm: bool | None = _key(None, "model: normalize queries and keys")
    attn_logit_softcapping: float | None = _key(None, "model: cap of the attention logits")
    initializer_range: float | None = _key(None, "model: deviation of the initial weights")

    def __post_init__(self):
        super().__post_init__()
        self._check_adaptation()
        self.tokenizer = self.tokenizer or self.pretrained
        if not self.tokenizer:
            raise ValueError("--tokenizer is missing: give the folder that examples/train_tokenizer.py wrote.")
        for name in ("bootstrap_fraction", "context_level_fraction", "pure_noise_fraction", "own_past_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is no share: give 0 to 1.")
        if self.past_copies < 0:
            raise ValueError(f"past_copies={self.past_copies} is impossible: give 0 or more.")
        for name in ("pure_noise_fraction", "own_past_fraction"):
            if getattr(self, name) > 0 and self.past_copies == 0:
                raise ValueError(f"{name} is about frames beside a past: give --past_copies 1, too.")
        if not 0 <= self.num_context_frames < self.sequence_length:
            raise ValueError(
                f"num_context_frames={self.num_context_frames} leaves nothing of {self.sequence_length} frames to learn: "
                "give 0 or more, and fewer than sequence_length."
            )
        if self.context_level_fraction == 1 and not self.context_loss:
            raise ValueError(
                "context_level_fraction=1 without context_loss leaves nothing to learn: give less than 1."
            )

    def adaptation_values(self) -> dict:
        """See the base class."""
        values = {name: getattr(self, name) for name in ("lora_rank", "lora_alpha", "freeze")}
        return {name: value for name, value in values.items() if value}

    def _check_adaptation(self) -> None:
        for name in ("lora_rank", "lora_alpha"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is impossible: give at least 1.")
        for name in ("lora_rank", "reset_action_embedding", "freeze"):
            if getattr(self, name) and not self.pretrained:
                raise ValueError(f"--{name} changes a saved model: give it as --pretrained.")
        if self.lora_alpha and not self.lora_rank:
            raise ValueError("--lora_alpha scales adapters: give their --lora_rank, too.")
        for name in ("freeze", "ema_decay"):
            if self.lora_rank and getattr(self, name):
                raise ValueError(
                    f"--lora_rank trains adapters alone, which leaves --{name} nothing to do: leave it out."
                )
        unknown = set(self.freeze or ()) - set(FREEZABLE_PARTS)
        if unknown or set(self.freeze or ()) == set(FREEZABLE_PARTS):
            fault = f"there is no part {sorted(unknown)[0]!r}" if unknown else "nothing would be left to train"
            raise ValueError(f"--freeze: {fault}: choose some of {', '.join(FREEZABLE_PARTS)}.")


class _Parser(HfArgumentParser):
    """Tells a mistake as a `ValueError` instead of printing the usage and leaving."""

    def error(self, message: str):
        raise ValueError(f"{message}; --help lists the keys and their values.")


def parse_arguments(
    arguments_class: type[TrainerArguments],
    section: str,
    presets_dir: str | Path,
    description: str,
    argv: list[str] | None = None,
) -> TrainerArguments:
    """Reads the keys of a run.

    Args:
        arguments_class: `TokenizerArguments` or `DynamicsArguments`.
        section: the part of a preset that belongs to this script, "tokenizer" or "dynamics".
        presets_dir: folder of the preset files.
        description: first line of `--help`.
        argv: the command line; `sys.argv[1:]` if not given.

    Raises:
        ValueError: an unknown key, a value of the wrong type, an unknown preset.
        FileNotFoundError: the config file does not exist.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _Parser(arguments_class, description=description, allow_abbrev=False)
    names = [f.name for f in dataclasses.fields(arguments_class)]
    config_argv = _config_argv(_flag(argv, "config"), names)
    preset_argv = _preset_argv(_flag([*config_argv, *argv], "preset"), section, Path(presets_dir), names)
    arguments, unknown = parser.parse_args_into_dataclasses(
        [*preset_argv, *config_argv, *argv], return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        raise ValueError(_unknown_key(unknown[0], names))
    return arguments


def _flag(argv: list[str], name: str) -> str | None:
    """The last value of one flag, before the real parsing."""
    value = None
    for position, word in enumerate(argv):
        if word == f"--{name}" and position + 1 < len(argv):
            value = argv[position + 1]
        elif word.startswith(f"--{name}="):
            value = word.split("=", 1)[1]
    return value


def _config_argv(path: str | None, names: list[str]) -> list[str]:
    if path is None:
        return []
    values = _read_yaml(Path(path))
    values.pop("config", None)
    return _as_argv(values, names, f" in {path}")


def _preset_argv(preset: str | None, section: str, presets_dir: Path, names: list[str]) -> list[str]:
    if preset is None:
        return []
    known = sorted(path.stem for path in presets_dir.glob("*.yaml"))
    if preset not in known:
        raise ValueError(f"preset {preset!r} is unknown: choose one of {', '.join(known)}.")
    sections = _read_yaml(presets_dir / f"{preset}.yaml")
    return _as_argv(sections.get(section, {}), names, f" in preset {preset}")


def _read_yaml(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"the config file {path} does not exist: give the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no keys: write lines such as `learning_rate: 0.001`.")
    return values


def _as_argv(values: dict, names: list[str], where: str) -> list[str]:
    """Turns keys and values into command-line words: the parser then checks them as it checks flags."""
    words = []
    for key, value in values.items():
        if key not in names:
            raise ValueError(_unknown_key(str(key), names, where))
        if value is not None:
            words += [f"--{key}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def _unknown_key(word: str, names: list[str], where: str = "") -> str:
    key = word.lstrip("-").split("=")[0]
    close = difflib.get_close_matches(key.replace("-", "_"), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(names)}."
    return f"unknown key {key!r}{where}: {hint}"
