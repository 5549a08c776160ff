"""Shares a finished folder of shards on the Hugging Face Hub, with a card that describes it."""

import json
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from .files import first_line, replacing
from .hub import HUB_ERRORS
from .inspect_dataset import action_labels, save_contact_sheet
from .shard_dataset import ShardDataset
from .shards import INDEX_NAME, METADATA_NAME

SHEET_NAME = "contact_sheet.png"
CARD_NAME = "README.md"

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ episodes }} episodes, {{ frames }} frames{{ rate }}, as HDF5 shards for world models.

![The first and last frames of some episodes, with the action that led to each]({{ sheet }})

```python
from dreamer_hf.data import ShardDataset

dataset = ShardDataset("{{ repo_id }}", window_size=32)
```

Shards are downloaded when they are first read.

## Frames and actions

- frames: {{ frame_shape }}, uint8 RGB
- actions: {{ action_dim }} numbers per frame{{ relative }}

{{ action_table }}

## Source

```json
{{ source }}
```

## Arguments of the conversion

```json
{{ conversion }}
```
"""


def push_shards(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Upload a folder of shards as the dataset repository `repo_id` and return its address.

    A card (`README.md`) and a contact sheet are written into the folder first.

    Raises:
        FileNotFoundError, ValueError: the folder does not hold a finished conversion.
        OSError: the Hub refuses the upload or cannot be reached.
    """
    folder = Path(folder)
    write_card(folder, repo_id)
    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[METADATA_NAME, INDEX_NAME, CARD_NAME, SHEET_NAME, "shard_*.h5"],
            commit_message="Upload shards",
        )
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be written ({first_line(error)}): check the name and `hf auth login`; the shards stay "
            f"in {folder}, and the same command with --resume tries again."
        ) from error
    return str(address)


def write_card(folder: Path, repo_id: str) -> None:
    """Write `README.md` and `contact_sheet.png` into a folder of shards."""
    data = ShardDataset(folder, None, split="all")
    if data.image_size is not None:
        save_contact_sheet(folder / SHEET_NAME, folder)
    frames = int(data.episode_lengths.sum())
    card = DatasetCard.from_template(
        DatasetCardData(
            tags=["dreamer_hf", "world-model"], task_categories=["robotics"], pretty_name=repo_id.split("/")[-1]
        ),
        template_str=CARD,
        title=repo_id.split("/")[-1],
        repo_id=repo_id,
        episodes=data.num_episodes,
        frames=frames,
        rate="" if data.fps is None else f" at {data.fps:g} frames per second ({frames / data.fps / 3600:.2f} hours)",
        sheet=SHEET_NAME,
        frame_shape=tuple(data.metadata.latent_shape or data.metadata.image_shape),
        action_dim=data.action_dim,
        relative=_relative(data),
        action_table=_action_table(data),
        source=json.dumps(data.metadata.source, indent=2),
        conversion=json.dumps(data.metadata.conversion, indent=2),
    )
    with replacing(folder / CARD_NAME) as temporary:
        temporary.write_text(str(card), encoding="utf-8")


def _relative(data: ShardDataset) -> str:
    """Return which actions are displacements, as the end of a sentence."""
    if not any(data.relative_actions or ()):
        return ""
    if all(data.relative_actions):
        return ", displacements since the frame before"
    names = [name for name, relative in zip(action_labels(data), data.relative_actions, strict=True) if relative]
    return f"; displacements since the frame before: {', '.join(names)}"


def _action_table(data: ShardDataset) -> str:
    if data.action_stats is None:
        return ""
    rows = ["| action | mean | std | min | max |", "| --- | --- | --- | --- | --- |"]
    for dim, name in enumerate(action_labels(data)):
        rows.append(
            f"| {name} | "
            + " | ".join(f"{data.action_stats[k][dim]:.4g}" for k in ("mean", "std", "min", "max"))
            + " |"
        )
    return "\n".join(rows)
