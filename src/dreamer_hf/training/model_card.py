"""The card of a finished run: what was trained on what, how good it is, and the lines that load and play it."""

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

NON_EMA = "non_ema"
"""Variant under which the weights of the last step are saved where those of `from_pretrained` are averages."""

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ summary }}
{% if preview %}
![{{ preview_text }}]({{ preview }})
{% endif %}
## {{ usage_title }}

```python
{{ usage }}
```

{{ usage_text }}

## Sizes

{{ sizes }}
{% if actions %}
## Actions

{{ actions }}
{% endif %}
## Data

{{ data }}

{{ evaluation_title }}

{{ begin }}
{{ metrics }}
{{ end }}

## Training

{{ training }}
"""

ADAPTER = "adapter"
TITLES = {
    "tokenizer": "A Dreamer 4 tokenizer",
    "world": "A Dreamer 4 world",
    ADAPTER: "An adapter of a Dreamer 4 world",
}
SUMMARIES = {
    "tokenizer": "A Dreamer 4 tokenizer ([arXiv 2509.24527](https://arxiv.org/abs/2509.24527)): video frames to "
    "continuous latents and back, causal in time.",
    "world": "A Dreamer 4 world ([arXiv 2509.24527](https://arxiv.org/abs/2509.24527)): give it a few frames, "
    "then steer it with actions, and it dreams what follows.",
    ADAPTER: "A LoRA adapter ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)) for the dynamics model of a Dreamer 4 "
    "world ([arXiv 2509.24527](https://arxiv.org/abs/2509.24527)), trained on the episodes below.",
}
DREAMT_PREVIEW = "Held-out episodes: real, dreamt with the same actions, and with those of another episode"
PREVIEWS = {
    "tokenizer": "Held-out frames: masked, reconstructed, real",
    "world": DREAMT_PREVIEW,
    ADAPTER: DREAMT_PREVIEW,
}
MEASURES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS (lower is better)",
    "mean_image_psnr": "PSNR of the mean image, dB",
    "repeat_psnr": "PSNR of repeating the last real frame, dB",
    "flow_loss": "flow loss",
    "action_shuffle_ratio": "error when dreamt with another window's actions, as a multiple of that with its own",
}

TOKENIZER_USAGE = """import numpy as np
from transformers import AutoModel, AutoVideoProcessor

tokenizer = AutoModel.from_pretrained("{place}", trust_remote_code=True)
processor = AutoVideoProcessor.from_pretrained("{place}", trust_remote_code=True)
video = np.zeros((8, {size}, 3), np.uint8)  # your frames, RGB
latents = tokenizer.encode(processor(video, return_tensors="pt").pixel_values_videos).latents
frames = tokenizer.decode(latents).pixel_values_videos  # (1, 8, 3, {size}) in [0, 1]"""

WORLD_USAGE = """from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from transformers import AutoModel

world = AutoModel.from_pretrained("{place}", trust_remote_code=True)
start = load_file({start})  # held-out frames to begin from
start = {{name: rows[:1] for name, rows in start.items()}}
rollout = world.start_rollout(**start)
frame = rollout.step([{action}]).pixel_values  # (1, 3, {size}) in [0, 1]; again and again"""

ADAPTER_USAGE = """from dreamer_hf import DreamerWorldModel
from dreamer_hf.adapters import load_adapter
from dreamer_hf.start_frames import load_start_frames

world = DreamerWorldModel.from_pretrained("{base}").eval()
load_adapter(world, "{place}")
start = load_start_frames("{place}")[0]  # held-out frames to begin from
rollout = world.start_rollout(start)
frame = rollout.step([{action}]).pixel_values  # again and again"""


@dataclass(frozen=True)
class CardFacts:
    """What the card says and the saved model does not.

    Attributes:
        repo_id: where the folder is to be uploaded to, if it is.
        train_data, test_data: the episodes trained on, and those held out.
        metrics: values of the last evaluation, by the names of metrics.jsonl.
        training: a sentence on steps, rows and time.
        ema_decay: of the averaged weights; 0 if there are none.
        preview: file name of the picture beside the card, if there is one.
    """

    repo_id: str | None
    train_data: ShardDataset
    test_data: ShardDataset
    metrics: dict[str, float]
    training: str
    ema_decay: float
    preview: str | None


def write_model_card(folder: Path, facts: CardFacts) -> None:
    """Writes `README.md` for the tokenizer or world that was saved in `folder`. It names no path of this machine."""
    config = AutoConfig.from_pretrained(folder)
    kind = config.model_type.removeprefix("dreamer_")
    _write(
        folder,
        facts,
        kind,
        _card_data(facts, kind),
        usage=_usage(config, facts.repo_id),
        usage_text=_usage_text(config, facts),
        sizes=markdown_table(("", ""), _sizes(config)),
        actions=_actions(config.dynamics_config) if kind == "world" else None,
    )


def write_adapter_card(folder: Path, facts: CardFacts, dynamics: PreTrainedModel) -> None:
    """Writes `README.md` for the adapter of a dynamics model that was saved in `folder`. It names no path, either."""
    adapter = dynamics.peft_config[dynamics.active_adapters()[0]]
    base = adapter.base_model_name_or_path.removeprefix("./")
    data = _card_data(facts, ADAPTER)
    data.library_name = "peft"
    if "/" in base:  # the name of a Hub repository, not of a folder
        data.base_model = base
    count = sum(parameter.numel() for parameter in dynamics.parameters() if parameter.requires_grad)
    sizes = [("parameters of the adapter", f"{count:,}"), ("rank", str(adapter.r)), ("alpha", str(adapter.lora_alpha))]
    place = facts.repo_id or "."
    _write(
        folder,
        facts,
        ADAPTER,
        data,
        usage=ADAPTER_USAGE.format(place=place, base=base, action=_middle_action(dynamics.config)),
        usage_text=f"It belongs to the world `{base}`, and `python examples/play.py --model {base} --adapter {place}` plays it.",
        sizes=markdown_table(("", ""), sizes),
        actions=_actions(dynamics.config),
    )


def _write(folder: Path, facts: CardFacts, kind: str, card_data: ModelCardData, **parts: str | None) -> None:
    card = ModelCard.from_template(
        card_data,
        template_str=TEMPLATE,
        title=facts.repo_id.split("/")[-1] if facts.repo_id else TITLES[kind],
        summary=SUMMARIES[kind],
        preview=facts.preview,
        preview_text=PREVIEWS[kind],
        usage_title="Load it" if kind == "tokenizer" else "Load and play it",
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
    """The dataset repository that the data were read or downloaded from, if they were."""
    if data.repo_id is not None:
        return data.repo_id
    source = data.metadata.source or {}
    # A local dataset has a name too, but no revision: that name may be nobody's on the Hub.
    return source.get("repo_id") if source.get("revision") else None


def _usage(config: PreTrainedConfig, repo_id: str | None) -> str:
    place = repo_id or "."
    if config.model_type == "dreamer_tokenizer":
        return TOKENIZER_USAGE.format(place=place, size=", ".join(map(str, config.frame_size)))
    name = '"start_frames.safetensors"'
    start = f'hf_hub_download("{repo_id}", {name})' if repo_id else name
    usage = WORLD_USAGE if repo_id else WORLD_USAGE.split("\n", 1)[1]
    size = ", ".join(map(str, config.tokenizer_config.frame_size))
    action = _middle_action(config.dynamics_config)
    return usage.format(place=place, start=start, size=size, action=action)


def _middle_action(config: PreTrainedConfig) -> list[float]:
    """An action that the world knows: the mean of continuous components, the first class of the others."""
    means = config.action_stats["mean"] if config.action_stats else [0.0] * config.action_dim
    continuous = config.continuous_action_indices
    return [float(f"{mean:.3g}") if index in continuous else 0.0 for index, mean in enumerate(means)]


def _usage_text(config: PreTrainedConfig, facts: CardFacts) -> str:
    place = facts.repo_id or "."
    where = "" if facts.repo_id else "Run it in this folder. "
    text = (
        f"{where}The folder carries its own code, so transformers is enough. With `dreamer_hf` installed the code of the "
        "package is used"
    )
    if config.model_type == "dreamer_world":
        text += f", and `python examples/play.py --model {place}` plays the world with a joystick, keyboard or mouse"
    text += "."
    if facts.ema_decay:
        text += (
            f"\n\n`from_pretrained` gives averaged weights (EMA of decay {facts.ema_decay:g}), the ones measured below; "
            f'`variant="{NON_EMA}"` gives those of the last step.'
        )
    return text


def _sizes(config: PreTrainedConfig) -> list[tuple[str, str]]:
    with torch.device("meta"):  # shapes without memory
        model = AutoModel.from_config(config)
    if config.model_type == "dreamer_tokenizer":
        return [("parameters", f"{model.num_parameters():,}"), *_tokenizer_sizes(config)]
    dynamics = config.dynamics_config
    rate = "unknown" if dynamics.fps is None else f"{dynamics.fps:g}"
    return [
        ("parameters of the tokenizer", f"{model.tokenizer.num_parameters():,}"),
        ("parameters of the dynamics model", f"{model.dynamics.num_parameters():,}"),
        *_tokenizer_sizes(config.tokenizer_config),
        ("frames a second", rate),
        ("context of the dynamics model", f"{dynamics.context_length} frames"),
    ]


def _tokenizer_sizes(config: PreTrainedConfig) -> list[tuple[str, str]]:
    return [
        ("frame", f"{' x '.join(map(str, config.frame_size))} pixels, {config.num_channels} channels"),
        ("latents of a frame", f"{config.num_latent_tokens} tokens of {config.latent_dim} channels"),
    ]


def _actions(config: PreTrainedConfig) -> str:
    meaning = (
        "the command that led to frame i (press, and the next frame shows it)"
        if config.action_offset
        else "the action recorded beside frame i"
    )
    text = (
        f"A frame takes {config.action_dim} numbers, raw: in the units of the data below, in which the world also "
        f"normalizes them. `actions[:, i]` is {meaning}."
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
    hours = "" if train.fps is None else f" ({frames / train.fps / 3600:.2f} hours at {train.fps:g} frames a second)"
    text = (
        f"Trained on {train.num_episodes} episodes, {frames:,} frames{hours}; episodes held out: {test.num_episodes}."
    )
    dataset = _public_dataset(train)
    if dataset:
        return f"{text} They come from [{dataset}](https://huggingface.co/datasets/{dataset})."
    name = (train.metadata.source or {}).get("repo_id", "")
    return f"{text} They come from a LeRobot dataset named {name}." if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else text


def _metrics(folder: Path, facts: CardFacts) -> str:
    """The evaluation that lies in the folder, if one does; else the values of the run's last evaluation."""
    if (folder / EVALUATION_NAME).is_file():
        return evaluation_table(read_report(folder / EVALUATION_NAME))
    rows = [(_measure(name.removeprefix("eval_")), f"{value:.4g}") for name, value in facts.metrics.items()]
    return markdown_table(("measure", "value"), rows)


def _measure(name: str) -> str:
    """Turns a name of metrics.jsonl, such as psnr_8, into words."""
    stem, step = re.fullmatch(r"(.+?)(?:_(\d+))?", name).groups()
    text = MEASURES.get(stem, stem)
    return f"{text}, at dreamt frame {step}" if step else text
