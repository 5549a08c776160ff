"""The card of a finished run: what was trained on what, how good it is, and the lines that load and play it.

The text is in the template `model_card.md`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ..data import ShardDataset
from ..data.files import replacing
from ..evaluation.evaluation_card import CARD_NAME, SECTION_BEGIN, SECTION_END, SECTION_TITLE
from ..evaluation.report import EVALUATION_NAME, read_report
from ..evaluation.tables import evaluation_table, markdown_table

TEMPLATE = Path(__file__).with_name("model_card.md")
NON_EMA = "non_ema"
"""Variant under which the weights of the last step are saved if `from_pretrained` loads averages."""
ADAPTER = "adapter"
TITLES = {
    "tokenizer": "A Dreamer 4 tokenizer",
    "world": "A Dreamer 4 world",
    "agent": "A Dreamer 4 agent",
    ADAPTER: "An adapter of a Dreamer 4 world",
}
MEASURES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS (lower is better)",
    "mean_image_psnr": "PSNR of the mean image, dB",
    "repeat_psnr": "PSNR of repeating the last real frame, dB",
    "flow_loss": "flow loss",
    "policy_nll": "negative log-likelihood of held-out actions, nats (distance in frames)",
    "policy_floor": "that of the histogram of all actions, nats",
    "reward_error": "mean absolute error of predicted rewards",
    "reward_correlation": "correlation of predicted and real rewards",
    "action_shuffle_ratio": "error when dreamed with another window's actions, as a multiple of that with its own",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card says and the saved model does not.

    Attributes:
        repo_id: repository that the folder will be uploaded to, if any.
        train_data, test_data: the episodes trained on, and the held-out ones.
        metrics: values of the last evaluation, by the names of metrics.jsonl.
        training: a sentence on steps, rows and time.
        ema_decay: decay of the averaged weights; 0 if there are none.
        preview: file name of the image in the folder, if there is one.
    """

    repo_id: str | None
    train_data: ShardDataset
    test_data: ShardDataset
    metrics: dict[str, float]
    training: str
    ema_decay: float
    preview: str | None


def write_model_card(folder: Path, facts: CardFacts) -> None:
    """Write `README.md` for the tokenizer or world that was saved in `folder`. It names no path of this machine."""
    config = AutoConfig.from_pretrained(folder)
    kind = config.model_type.removeprefix("dreamer_")
    world = getattr(config, "world_config", config)
    tokenizer, dynamics = (config, None) if kind == "tokenizer" else (world.tokenizer_config, world.dynamics_config)
    _write(
        folder,
        facts,
        kind,
        _card_data(facts, kind),
        frame_size=", ".join(map(str, tokenizer.frame_size)),
        action=dynamics and _typical_action(dynamics),
        ema_decay=f"{facts.ema_decay:g}" if facts.ema_decay else None,
        non_ema=NON_EMA,
        sizes=markdown_table(("", ""), _sizes(config)),
        actions=dynamics and _actions(dynamics),
        tasks=_tasks(config) if kind == "agent" else None,
    )


def write_adapter_card(folder: Path, facts: CardFacts, dynamics: PreTrainedModel) -> None:
    """Write `README.md` for the adapter of a dynamics model that was saved in `folder`. It names no path, either."""
    adapter = dynamics.peft_config[dynamics.active_adapters()[0]]
    base = adapter.base_model_name_or_path.removeprefix("./")
    data = _card_data(facts, ADAPTER)
    data.library_name = "peft"
    if "/" in base:  # the name of a Hub repository, not of a folder
        data.base_model = base
    count = sum(parameter.numel() for parameter in dynamics.parameters() if parameter.requires_grad)
    sizes = [("parameters of the adapter", f"{count:,}"), ("rank", str(adapter.r)), ("alpha", str(adapter.lora_alpha))]
    _write(
        folder,
        facts,
        ADAPTER,
        data,
        base=base,
        action=_typical_action(dynamics.config),
        sizes=markdown_table(("", ""), sizes),
        actions=_actions(dynamics.config),
    )


def _write(folder: Path, facts: CardFacts, kind: str, card_data: ModelCardData, **parts: str | None) -> None:
    card = ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        kind=kind,
        title=facts.repo_id.split("/")[-1] if facts.repo_id else TITLES[kind],
        repo_id=facts.repo_id,
        place=facts.repo_id or ".",
        preview=facts.preview,
        data=_data(facts),
        evaluation_title=SECTION_TITLE,
        begin=SECTION_BEGIN,
        metrics=_metrics(folder, facts),
        end=SECTION_END,
        training=facts.training,
        **parts,
    )
    with replacing(folder / CARD_NAME) as temporary:
        temporary.write_text(f"{card}\n", encoding="utf-8")


def _card_data(facts: CardFacts, kind: str) -> ModelCardData:
    dataset = _public_dataset(facts.train_data)
    return ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="robotics",
        tags=["dreamer_hf", "dreamer", "world-model", kind],
        datasets=[dataset] if dataset else None,
    )


def _public_dataset(data: ShardDataset) -> str | None:
    """Return the dataset repository that the data were read or downloaded from, None if they were not."""
    if data.repo_id is not None:
        return data.repo_id
    source = data.metadata.source or {}
    # A local dataset has a name too, but no revision: on the Hub, that name may be somebody else's.
    return source.get("repo_id") if source.get("revision") else None


def _typical_action(config: PreTrainedConfig) -> str:
    """Return an action that the world knows: the mean of continuous components, the first class of the others."""
    means = config.action_stats["mean"] if config.action_stats else [0.0] * config.action_dim
    continuous = config.continuous_action_indices
    return str([float(f"{mean:.3g}") if index in continuous else 0.0 for index, mean in enumerate(means)])


def _sizes(config: PreTrainedConfig) -> list[tuple[str, str]]:
    with torch.device("meta"):  # shapes without memory
        model = AutoModel.from_config(config)
    if config.model_type == "dreamer_tokenizer":
        return [("parameters", f"{model.num_parameters():,}"), *_tokenizer_sizes(config)]
    world, dynamics = getattr(model, "world", model), config.dynamics_config
    of_agent = model.num_parameters() - world.num_parameters()
    return [
        *([("parameters of the agent's tokens, eye and heads", f"{of_agent:,}")] if of_agent else []),
        ("parameters of the tokenizer", f"{world.tokenizer.num_parameters():,}"),
        ("parameters of the dynamics model", f"{world.dynamics.num_parameters():,}"),
        *_tokenizer_sizes(world.config.tokenizer_config),
        ("frames per second", f"{dynamics.fps:g}"),
        ("context of the dynamics model", f"{dynamics.context_length} frames"),
    ]


def _tasks(config: PreTrainedConfig) -> str:
    """Return the numbers and names of an agent's tasks."""
    names = config.task_names or [f"task {number}" for number in range(config.num_tasks)]
    return markdown_table(("number", "task"), [(str(number), name) for number, name in enumerate(names)])


def _tokenizer_sizes(config: PreTrainedConfig) -> list[tuple[str, str]]:
    return [
        ("frame", f"{' x '.join(map(str, config.frame_size))} pixels, {config.num_channels} channels"),
        ("latents of a frame", f"{config.num_latent_tokens} tokens with {config.latent_dim} channels"),
    ]


def _actions(config: PreTrainedConfig) -> str:
    meaning = (
        "the command that led to frame i (press, and the next frame shows it)"
        if config.action_offset
        else "the action recorded together with frame i"
    )
    text = (
        f"Each frame takes {config.action_dim} raw numbers, in the units of the data below; the model normalizes "
        f"them. `actions[:, i]` is {meaning}."
    )
    if config.action_stats is None:
        return text
    names = config.action_names or [str(index) for index in range(config.action_dim)]
    units = config.action_units or [""] * config.action_dim
    names = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]
    keys = [key for key in ("mean", "std", "min", "max") if key in config.action_stats]
    rows = [(name, *(f"{config.action_stats[key][i]:.4g}" for key in keys)) for i, name in enumerate(names)]
    return f"{text}\n\n{markdown_table(('action', *keys), rows)}"


def _data(facts: CardFacts) -> str:
    train, test = facts.train_data, facts.test_data
    frames = int(train.episode_lengths.sum())
    hours = "" if train.fps is None else f" ({frames / train.fps / 3600:.2f} hours at {train.fps:g} frames per second)"
    text = (
        f"Trained on {train.num_episodes} episodes, {frames:,} frames{hours}; episodes held out: {test.num_episodes}."
    )
    dataset = _public_dataset(train)
    if dataset:
        return f"{text} They come from [{dataset}](https://huggingface.co/datasets/{dataset})."
    name = (train.metadata.source or {}).get("repo_id", "")
    return f"{text} They come from a LeRobot dataset named {name}." if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else text


def _metrics(folder: Path, facts: CardFacts) -> str:
    """Return the evaluation in the folder as a table, or the values of the run's last evaluation if there is none."""
    if (folder / EVALUATION_NAME).is_file():
        return evaluation_table(read_report(folder / EVALUATION_NAME))
    rows = [(_measure(name.removeprefix("eval_")), f"{value:.4g}") for name, value in facts.metrics.items()]
    return markdown_table(("measure", "value"), rows)


def _measure(name: str) -> str:
    """Turn a name of metrics.jsonl, such as psnr_8, into words."""
    stem, step = re.fullmatch(r"(.+?)(?:_(\d+))?", name).groups()
    text = MEASURES.get(stem, stem)
    return f"{text}, at dreamed frame {step}" if step else text
