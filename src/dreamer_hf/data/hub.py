"""Datasets on the Hugging Face Hub: downloads the files that are needed, and shares a finished folder of shards with a card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from huggingface_hub import DatasetCard, DatasetCardData, HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from .files import first_line, replacing

if TYPE_CHECKING:
    from .shard_dataset import ShardDataset

HUB_ERRORS = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, httpx.HTTPError)
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
- actions: {{ action_dim }} numbers a frame{{ relative }}

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


def download_dataset(
    repo_id: str, patterns: list[str], revisions: Sequence[str | None] = (None,), cache_dir: Path | None = None
) -> Path:
    """Download those files of a dataset repository that match the patterns, or find them in the cache.

    Args:
        repo_id: the repository.
        patterns: names of files, `*` standing for anything.
        revisions: branches, tags or commits, of which the first that exists is taken; None is the main branch.
        cache_dir: the cache to use; default: that of huggingface_hub.

    Returns:
        The folder of the files, which is named by the commit.

    Raises:
        FileNotFoundError: the repository does not exist, or the Hub cannot be reached and the cache lacks the files.
    """
    failure, offline = None, False
    for revision in revisions:
        where = {"repo_type": "dataset", "revision": revision, "cache_dir": cache_dir, "local_files_only": offline}
        try:
            return Path(snapshot_download(repo_id, allow_patterns=patterns, **where))
        except RepositoryNotFoundError as error:
            failure = error
            break
        except HUB_ERRORS as error:
            # What the first attempt did not reach, later ones need not wait for.
            offline = offline or not isinstance(error, HfHubHTTPError)
            failure = failure or error
    raise FileNotFoundError(
        f"{repo_id} is neither a folder here nor a dataset on the Hub ({first_line(failure)}): check the name, the "
        "connection, and `hf auth login` if it is private."
    ) from failure


def looks_like_a_path(name: str) -> bool:
    """Return whether a name can only be meant as a path, as the Hub has none like it."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def push_shards(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Uploads a folder of shards as the dataset repository `repo_id` and returns its address.

    A card (`README.md`) and a contact sheet are written into the folder first.

    Raises:
        FileNotFoundError, ValueError: the folder holds no finished conversion.
        OSError: the Hub refuses or cannot be reached.
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
            allow_patterns=["metadata.json", "index.npz", CARD_NAME, SHEET_NAME, "shard_*.h5"],
            commit_message="Upload shards",
        )
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be written ({first_line(error)}): check the name and `hf auth login`; the shards stay in "
            f"{folder}, and the same command with --resume tries again."
        ) from error
    return str(address)


def write_card(folder: Path, repo_id: str) -> None:
    """Writes `README.md` and `contact_sheet.png` into a folder of shards."""
    from .inspect_dataset import save_contact_sheet  # Converters start without torch, which these need.
    from .shard_dataset import ShardDataset

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
        rate="" if data.fps is None else f" at {data.fps:g} frames a second ({frames / data.fps / 3600:.2f} hours)",
        sheet=SHEET_NAME,
        frame_shape=tuple(data.metadata.latent_shape or data.metadata.image_shape),
        action_dim=data.action_dim,
        relative=", relative to the frame before" if data.metadata.relative_actions else "",
        action_table=_action_table(data),
        source=json.dumps(data.metadata.source, indent=2),
        conversion=json.dumps(data.metadata.conversion, indent=2),
    )
    with replacing(folder / CARD_NAME) as temporary:
        temporary.write_text(str(card), encoding="utf-8")


def _action_table(data: "ShardDataset") -> str:
    from .inspect_dataset import action_labels

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
