"""The options of a training run, grouped by what they concern: model, objective, data, optimizer, and the run itself.

The options of the model are the fields of its config class. On the command line and in YAML files all options are
flat.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from transformers import PreTrainedConfig

from ..configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerTransformerConfig

FREEZABLE_PARTS = ("space", "time", "latents", "actions", "control")
"""Parts of a dynamics model: its layers over space and over time, the projections into and out of the latents, the
action encoder, and the inputs for signal level and step size (with the registers)."""

PUBLIC_TEXT = ("preset", "hub_model_id", "prediction")
"""Options of free text that may be published; every other one may hold a private path."""


SIMPLE_TYPES = (bool | None, int | None, float | None, str | None, list[int] | None)
"""Types of config fields that one flag can set."""


class Limit(NamedTuple):
    """The values that an option may have."""

    description: str
    allows: Callable[[float], bool]


POSITIVE = Limit("a number above 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Limit("0 or more", lambda value: 0 <= value < math.inf)
SHARE = Limit("a share from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE_SHARE = Limit("a share above 0 and up to 1", lambda value: 0 < value <= 1)
BELOW_1 = Limit("a number from 0 to below 1", lambda value: 0 <= value < 1)


def option(default, text: str):
    """Return a dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


class Section:
    """Base class of one group of options."""

    limits: ClassVar[dict[Limit, tuple[str, ...]]] = {}

    def __post_init__(self):
        for limit, names in self.limits.items():
            for name in names:
                value = getattr(self, name)
                if value is not None and not limit.allows(value):
                    raise ValueError(f"expected {limit.description} for --{name}, got {value}.")


@dataclass
class DataArguments(Section):
    """Which data is trained on, in which windows."""

    _argument_group_name: ClassVar[str] = "data"
    limits: ClassVar = {
        POSITIVE: ("per_device_batch_size", "sequence_length", "stride", "long_sequence_length"),
        BELOW_1: ("long_fraction", "image_fraction"),
        POSITIVE_SHARE: ("train_fraction",),
        NOT_NEGATIVE: ("dataloader_num_workers",),
    }

    data_dir: str | None = option(None, "folder of HDF5 shards, or a dataset repository on the Hub (required)")
    sequence_length: int = option(16, "number of frames in a window")
    stride: int = option(1, "number of frames between the starts of neighboring windows")
    long_sequence_length: int | None = option(None, "number of frames in the long windows; none are used if not given")
    long_fraction: float = option(0.1, "share of batches with long windows among those of video")
    image_fraction: float = option(
        0.0, "share of batches that hold single images, to learn the first frame of a video"
    )
    per_device_batch_size: int = option(8, "number of windows in one batch on one device")
    train_fraction: float = option(0.9, "share of the episodes to train on; the others are held out")
    dataloader_num_workers: int = option(0, "number of processes that load data; 0 loads it in the main process")

    def __post_init__(self):
        super().__post_init__()
        if not self.data_dir:
            raise ValueError("--data_dir is missing: give it as a flag or in the --config file.")


@dataclass
class OptimizerArguments(Section):
    """How weights are updated."""

    _argument_group_name: ClassVar[str] = "optimizer"
    limits: ClassVar = {
        POSITIVE: (
            "learning_rate",
            "muon_learning_rate",
            "latent_learning_rate_ratio",
            "head_learning_rate_ratio",
            "token_learning_rate_ratio",
            "max_grad_norm",
            "gradient_accumulation_steps",
        ),
        NOT_NEGATIVE: ("lr_warmup_steps", "weight_decay"),
        SHARE: ("min_learning_rate_ratio",),
        BELOW_1: ("ema_decay",),
    }

    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "`muon` trains hidden matrices with Muon and everything else with AdamW"
    )
    learning_rate: float = option(3e-4, "peak learning rate of AdamW")
    muon_learning_rate: float = option(1e-3, "peak learning rate of Muon, on the same scale as AdamW's")
    latent_learning_rate_ratio: float = option(
        1.0, "factor on the learning rate of the projections into and out of the latents"
    )
    head_learning_rate_ratio: float = option(1.0, "factor on the learning rate of an agent's heads")
    token_learning_rate_ratio: float = option(1.0, "factor on the learning rate of an agent's tokens")
    lr_warmup_steps: int = option(100, "number of steps of linear warm-up")
    min_learning_rate_ratio: float = option(0.1, "factor on the peak learning rate at the end of the cosine schedule")
    weight_decay: float = option(0.01, "decoupled weight decay of matrices (norms, biases and embeddings have none)")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    gradient_accumulation_steps: int = option(1, "number of batches per optimizer step")
    ema_decay: float = option(0.0, "decay of the averaged weights that are evaluated and saved; 0 keeps no average")


@dataclass
class RunArguments(Section):
    """How long a run takes, what it writes, and where."""

    _argument_group_name: ClassVar[str] = "run"
    limits: ClassVar = {
        POSITIVE: (
            "max_train_steps",
            "max_train_minutes",
            "logging_steps",
            "eval_windows",
            "checkpoints_total_limit",
            "threads",
            "profile",
        ),
        NOT_NEGATIVE: ("seed", "eval_steps", "checkpointing_steps"),
    }

    output_dir: str | None = option(None, "folder for metrics, checkpoints and the final model (required)")
    preset: str | None = option(
        None,
        "name of a preset, which sets options of model and training; `auto` chooses them for the data, the minutes "
        "and this machine",
    )
    config: str | None = option(None, "YAML file of options; it overrides the preset, and flags override both")
    pretrained: str | None = option(
        None, "start from the weights of this model, or of this part of a world (folder or Hub repository)"
    )
    max_train_steps: int = option(10_000, "number of optimizer steps")
    max_train_minutes: float | None = option(
        None, "stop earlier, after this many minutes of training; the learning rate is annealed by then"
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "precision of the forward pass; the setting of `accelerate launch` if not given"
    )
    gradient_checkpointing: bool = option(
        False, "recompute activations in the backward pass, which saves memory and costs time"
    )
    torch_compile: bool = option(
        False, "compile the layers, which pays off on a GPU; a resumed run is then equal only up to rounding"
    )
    threads: int | None = option(
        None, "number of CPU threads of PyTorch; on a CPU, chosen by a short measurement if not given"
    )
    seed: int = option(0, "seed of the initial weights, the data order and all random draws")
    logging_steps: int = option(10, "number of steps between lines in metrics.jsonl")
    eval_steps: int = option(
        500, "number of steps between evaluations on held-out windows; 0 evaluates only at the end"
    )
    eval_windows: int = option(32, "number of held-out windows in an evaluation")
    lpips_net: Literal["vgg", "alex", "none"] = option(
        "vgg", "network of LPIPS, the perceptual loss and metric; skipped if its weights are not on this machine"
    )
    checkpointing_steps: int = option(
        500, "number of steps between resumable checkpoints; 0 saves one only at the end"
    )
    checkpoints_total_limit: int | None = option(
        None, "number of checkpoints to keep, the newest ones; all if not given"
    )
    resume_from_checkpoint: str | None = option(
        None,
        "`latest` or the path of a checkpoint-<step> folder; options that are not given are those of the saved run",
    )
    profile: int | None = option(None, "number of steps to trace; the Chrome trace is written to the output folder")
    report_to: Literal["tensorboard", "wandb", "none"] = option("none", "tracker to use in addition to metrics.jsonl")
    push_to_hub: bool = option(False, "upload the final model, without checkpoints, to the Hub")
    hub_model_id: str | None = option(None, "repository to upload to, such as name/pusht-world")

    def __post_init__(self):
        super().__post_init__()
        if not self.output_dir:
            raise ValueError("--output_dir is missing: give it as a flag or in the --config file.")
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("--push_to_hub needs --hub_model_id: name the repository to upload to.")
        if self.hub_model_id and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub_model_id):
            raise ValueError(
                f"expected an owner and a name for --hub_model_id, such as me/pusht-world, got {self.hub_model_id}."
            )


@dataclass
class TokenizerObjectiveArguments(Section):
    """What a tokenizer is trained for."""

    _argument_group_name: ClassVar[str] = "objective"
    limits: ClassVar = {NOT_NEGATIVE: ("max_latent_noise", "pyramid_weight")}

    max_latent_noise: float = option(
        0.0, "maximum deviation of the noise added to latents before decoding, so that similar latents decode alike"
    )
    pyramid_weight: float = option(
        0.0,
        "weight of the squared error in whitened colors on all scales, for small objects; not in the paper",
    )
    freeze_encoder: bool = option(
        False, "keep the encoder of --pretrained, so that dynamics models trained on its latents stay valid"
    )


@dataclass
class DynamicsObjectiveArguments(Section):
    """What a dynamics model is trained for, and which of its weights."""

    _argument_group_name: ClassVar[str] = "objective"
    limits: ClassVar = {
        SHARE: ("bootstrap_fraction", "pure_noise_fraction", "own_context_fraction", "state_dropout"),
        NOT_NEGATIVE: ("context_copies", "num_context_frames", "bootstrap_start_step", "state_weight"),
        POSITIVE: ("num_start_frames", "lora_rank", "lora_alpha"),
    }

    tokenizer: str | None = option(
        None, "folder or repository of the frozen tokenizer (required, unless --pretrained is a world, which has one)"
    )
    cache_latents: bool = option(False, "encode all episodes once and keep their latents in memory")
    context_copies: int = option(
        0,
        "n > 0 shows each window once as context, with the noise level of a rollout's context, and denoises n copies "
        "of its frames, at 1 + n times the cost; 0 denoises each frame given noisy earlier frames, as in the paper",
    )
    num_context_frames: int = option(
        0, "with --context_copies: number of frames at the start of a window that are only context, without a loss"
    )
    pure_noise_fraction: float = option(
        0.0,
        "with --context_copies: share of frames that start from pure noise, where only context and action determine "
        "the result",
    )
    own_context_fraction: float = option(
        0.0,
        "with --context_copies: share of windows whose context, from a random frame on, is predicted by the model, so "
        "that it learns to continue from its own errors; costs one more pass for these",
    )
    bootstrap_fraction: float = option(
        0.25,
        "share of rows that learn coarse steps, at three passes each; 0 is plain flow matching with the finest step",
    )
    bootstrap_start_step: int = option(0, "optimizer step at which rows start to learn coarse steps")
    ramp_weight: bool = option(True, "weight frames by 0.9 times their signal level plus 0.1, as in the paper")
    learn_state: bool = option(True, "generate the state of the data with every frame, if the data have one")
    state_weight: float = option(0.5, "weight of the loss of the state; that of the latents has weight 1")
    state_dropout: float = option(
        0.1,
        "share of windows whose first frames, up to a random one, are shown without their state, so that a rollout "
        "can start from frames alone",
    )
    num_start_frames: int = option(8, "number of held-out starts that are saved with the model, for playing")
    lora_rank: int | None = option(None, "train LoRA adapters of this rank and keep the weights of --pretrained")
    lora_alpha: int | None = option(None, "adapters are scaled by lora_alpha / lora_rank; twice the rank if not given")
    reset_action_embedding: bool = option(
        False, "give the --pretrained model a new action encoder, whose width, names and statistics follow the data"
    )
    freeze: list[str] | None = field(
        default=None,
        metadata={
            "help": "parts of the --pretrained model to keep: space, time (layers), latents (projections, also of the "
            "state), actions (projections), control (signal level, step size, registers)"
        },
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("pure_noise_fraction", "own_context_fraction", "num_context_frames"):
            if getattr(self, name) > 0 and self.context_copies == 0:
                raise ValueError(f"--{name} concerns copies of the context: give --context_copies 1 as well.")
        if self.lora_alpha and not self.lora_rank:
            raise ValueError("--lora_alpha scales adapters: give --lora_rank as well.")
        if self.lora_rank and self.freeze:
            raise ValueError("--freeze has no effect with --lora_rank, which trains only adapters: leave it out.")
        unknown = set(self.freeze or ()) - set(FREEZABLE_PARTS)
        if unknown:
            raise ValueError(
                f"expected some of {', '.join(FREEZABLE_PARTS)} for --freeze, got {sorted(unknown)[0]!r}."
            )
        if set(self.freeze or ()) == set(FREEZABLE_PARTS):
            raise ValueError(f"--freeze leaves nothing to train: choose some of {', '.join(FREEZABLE_PARTS)}.")


def model_section(config_class: type[DreamerTransformerConfig], *measured: str) -> type:
    """Return a section with the fields of a config class, None by default, which keeps the default of the config.

    Args:
        config_class: source of names, types and (from its docstrings) help texts.
        measured: the fields that a run does not choose, because they follow from data, tokenizer or objective.
    """
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)} | set(measured)
    helps, options = _field_helps(config_class), []
    for known in dataclasses.fields(config_class):
        if known.name in inherited:
            continue
        one_number = {float | int | None: float, float | int: float, int | list[int]: int}
        kind = one_number.get(known.type, known.type) | None
        if kind in SIMPLE_TYPES:
            text = helps.get(known.name, f"see {config_class.__name__}")
            options.append((known.name, kind, option(None, text)))
    namespace = {"_argument_group_name": "model (None: the default of its config)"}
    return dataclasses.make_dataclass(
        f"{config_class.__name__}Arguments", options, bases=(Section,), namespace=namespace
    )


def _field_helps(config_class: type) -> dict[str, str]:
    """Return what the docstrings of a config class and of its bases say about each field."""
    texts = {}
    for base in reversed(config_class.__mro__):
        for name, text in re.findall(r"^ {8}(\w+) \(`.*?\):(.*(?:\n {12}.*)*)", base.__doc__ or "", re.MULTILINE):
            texts[name] = re.sub(r"\s+", " ", text).strip().replace("%", "%%")
    return texts


TokenizerModelArguments = model_section(
    DreamerTokenizerConfig, "image_size", "num_channels", "image_mean", "image_std"
)
DynamicsModelArguments = model_section(
    DreamerDynamicsConfig,
    *("num_latent_tokens", "latent_dim", "step_size_conditioning"),
    *("action_dim", "action_stats", "action_names", "action_units", "relative_actions", "fps"),
    *("state_dim", "state_stats", "state_names", "state_units", "camera_names"),
)


@dataclass
class TrainingArguments:
    """All options of a run. Every option belongs to one section; `values` gives them flat.

    Raises:
        ValueError: options that contradict each other.
    """

    kind: ClassVar[str]
    """What is trained; also the name of the part of a preset that applies."""

    model: Section
    objective: Section
    data: DataArguments
    optimizer: OptimizerArguments
    run: RunArguments

    @classmethod
    def sections(cls) -> dict[str, type]:
        """Return the class of every section, by name."""
        return {section.name: section.type for section in dataclasses.fields(cls)}

    @classmethod
    def options(cls) -> Iterator[dataclasses.Field]:
        """Yield the options of all sections."""
        for section in cls.sections().values():
            yield from dataclasses.fields(section)

    @classmethod
    def of(cls, **values) -> "TrainingArguments":
        """Build the options from flat values; what is not given has its default."""
        names = {name: {known.name for known in dataclasses.fields(kind)} for name, kind in cls.sections().items()}
        unknown = values.keys() - set().union(*names.values())
        if unknown:
            raise TypeError(f"there is no option {sorted(unknown)[0]!r}.")
        chosen = {section: {n: v for n, v in values.items() if n in own} for section, own in names.items()}
        return cls(**{name: kind(**chosen[name]) for name, kind in cls.sections().items()})

    def values(self) -> dict:
        """Return all options, flat."""
        return {name: value for section in dataclasses.asdict(self).values() for name, value in section.items()}

    def public_values(self) -> dict:
        """Return the options that trackers, cards and uploads may show: none of them can name a private folder."""
        texts = {known.name for known in self.options() if known.type in (str, str | None)}
        return {name: value for name, value in self.values().items() if name not in texts or name in PUBLIC_TEXT}

    def model_values(self) -> dict:
        """Return the options of the model that were given, for its config class."""
        return {name: value for name, value in dataclasses.asdict(self.model).items() if value is not None}

    def adaptation_values(self) -> dict:
        """Return the given options that say which weights are trained: they must be the same in a resumed run."""
        return {}


@dataclass
class TokenizerArguments(TrainingArguments):
    """All options of a tokenizer run."""

    kind: ClassVar[str] = "tokenizer"

    model: TokenizerModelArguments
    objective: TokenizerObjectiveArguments

    def __post_init__(self):
        if self.objective.freeze_encoder and not self.run.pretrained:
            raise ValueError("--freeze_encoder keeps the encoder of a saved model: give that model as --pretrained.")


@dataclass
class DynamicsArguments(TrainingArguments):
    """All options of a dynamics run."""

    kind: ClassVar[str] = "dynamics"

    model: DynamicsModelArguments
    objective: DynamicsObjectiveArguments

    def __post_init__(self):
        objective = self.objective
        for name in ("lora_rank", "reset_action_embedding", "freeze"):
            if getattr(objective, name) and not self.run.pretrained:
                raise ValueError(f"--{name} changes a saved model: give that model as --pretrained.")
        if objective.lora_rank and self.optimizer.ema_decay:
            raise ValueError("--ema_decay has no effect with --lora_rank, which trains only adapters: leave it out.")
        objective.tokenizer = objective.tokenizer or self.run.pretrained
        if not objective.tokenizer:
            raise ValueError("--tokenizer is missing: give the folder of a trained tokenizer.")
        if self.data.sequence_length < 2:
            raise ValueError(
                f"expected a --sequence_length of at least 2, got {self.data.sequence_length}: a dynamics model "
                "learns what follows a frame."
            )
        if objective.num_context_frames >= self.data.sequence_length:
            raise ValueError(
                f"expected --num_context_frames below --sequence_length {self.data.sequence_length}, got "
                f"{objective.num_context_frames}: no frame of a window would have a loss."
            )

    def adaptation_values(self) -> dict:
        """See `TrainingArguments`."""
        values = {name: getattr(self.objective, name) for name in ("lora_rank", "lora_alpha", "freeze")}
        return {name: value for name, value in values.items() if value}
