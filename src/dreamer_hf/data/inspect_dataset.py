"""Descriptions and contact sheets of shard folders: what `dreamer inspect` shows."""

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from .command_options import InspectOptions
from .files import replacing
from .shard_dataset import ShardDataset
from .shards import STATISTICS, ShardMetadata

TILE = 128
GAUGE = 10
MARGIN = 4


def describe(folder: str | Path, window_size: int, stride: int = 1, train_fraction: float = 0.9) -> str:
    """A text about lengths, actions, windows of each split, and size on disk.

    Raises:
        FileNotFoundError, ValueError: as `ShardDataset`.
    """
    data = ShardDataset(folder, None, split="all")
    metadata, lengths = data.metadata, data.episode_lengths
    size = sum(path.stat().st_size for path in Path(data.data_dir).glob("shard_*.h5"))
    shape = metadata.latent_shape or metadata.image_shape
    raw = int(lengths.sum()) * int(np.prod(shape)) * (2 if metadata.latent_shape else 1)
    rate = "unknown rate" if data.fps is None else f"{data.fps:g} frames/s, {lengths.sum() / data.fps / 3600:.2f} h"
    lines = [
        f"{data.data_dir}: {metadata.num_shards} shards, {data.num_episodes} episodes, "
        f"{lengths.sum()} frames ({rate})",
        f"source:  {metadata.source or 'unknown'}",
        f"frames:  {tuple(shape)}, colors {metadata.color_order or 'not said'}",
        *([f"cameras: {', '.join(data.camera_names)}"] if data.camera_names else []),
        f"lengths: min {lengths.min()}, median {np.median(lengths):g}, mean {lengths.mean():.1f}, max {lengths.max()}",
        f"on disk: {size / 1e6:.1f} MB, {100 * size / max(raw, 1):.1f} % of {raw / 1e6:.1f} MB",
        f"windows of {window_size} frames every {stride}: {_count_windows(data, window_size, stride, train_fraction)}",
        *_action_table(data),
        *_state_table(data),
    ]
    return "\n".join(lines)


def _count_windows(data: ShardDataset, window_size: int, stride: int, train_fraction: float) -> str:
    counts = []
    for split in ("train", "validation"):
        try:
            part = ShardDataset(data.data_dir, None, split=split, train_fraction=train_fraction)
            windows = len(part.with_window(window_size, stride))
        except ValueError:
            counts.append(f"{split} none")
        else:
            counts.append(f"{split} {windows} (of {part.num_episodes} episodes)")
    return ", ".join(counts)


def _action_table(data: ShardDataset) -> list[str]:
    if data.action_stats is None:
        return [f"actions: {data.action_dim} dimensions, no statistics stored"]
    kind = "relative" if data.metadata.relative_actions else "as recorded"
    return [f"actions ({kind}):", *_statistics_table(data.action_stats, action_labels(data))]


def _state_table(data: ShardDataset) -> list[str]:
    if not data.state_dim:
        return []
    if data.state_stats is None:
        return [f"state:   {data.state_dim} dimensions, no statistics stored"]
    return ["state:", *_statistics_table(data.state_stats, _labels("state", data.state_dim, data.metadata))]


def _statistics_table(stats: dict, labels: list[str]) -> list[str]:
    rows = [f"  {'name':20}{'mean':>12}{'std':>12}{'min':>12}{'max':>12}"]
    for dim, name in enumerate(labels):
        rows.append(f"  {name:20}" + "".join(f"{stats[key][dim]:12.4g}" for key in STATISTICS))
    return rows


def action_labels(data: ShardDataset) -> list[str]:
    """What to call each action dimension: its name and, where it is known, its unit in brackets."""
    return _labels("action", data.action_dim, data.metadata)


def _labels(kind: str, size: int, metadata: ShardMetadata) -> list[str]:
    names, units = (getattr(metadata, f"{kind}_{name}") for name in ("names", "units"))
    names = names or [f"{kind} {dim}" for dim in range(size)]
    return names if units is None else [f"{n} [{u}]" for n, u in zip(names, units, strict=True)]


def contact_sheet(
    folder: str | Path, episodes: int = 6, frames: int = 8, color_order: str | None = None
) -> np.ndarray:
    """Return an image (H, W, 3) uint8 RGB: rows of episodes, columns of frames from first to last.

    Under each frame one gauge per action dimension shows the action that led to it between the least and the greatest
    value in the data; a frame without an action has empty gauges.
    """
    data = ShardDataset(folder, None, split="all", color_order=color_order)
    if data.image_size is None:
        raise ValueError(f"{folder} holds latents, which cannot be shown: preview the shards they were made of.")
    chosen = np.linspace(0, data.num_episodes - 1, min(episodes, data.num_episodes)).round().astype(int)
    low, high = _action_range(data)
    rows = []
    for episode in chosen:
        length = int(data.episode_lengths[episode])
        tiles = []
        for time in np.linspace(0, length - 1, frames).round().astype(int):
            item = data.window(int(episode), int(time), 1)
            caption = f"{episode}:{time}"
            tiles.append(_tile(item, caption, low, high))
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate([_header(data, rows[0].shape[1]), *rows], axis=0)


def _action_range(data: ShardDataset) -> tuple[np.ndarray, np.ndarray]:
    stats = data.action_stats or {"min": [-1.0] * data.action_dim, "max": [1.0] * data.action_dim}
    low, high = np.array(stats["min"]), np.array(stats["max"])
    return low, np.maximum(high, low + 1e-6)


def _tile(item: dict[str, torch.Tensor], caption: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    frame = item["pixel_values_videos"][0]
    frame = frame if frame.ndim == 3 else torch.cat(list(frame), dim=-1)  # several cameras, side by side
    frame = frame.permute(1, 2, 0).numpy()
    scale = TILE / max(frame.shape[:2])
    inner = cv2.resize(
        frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    )
    height = inner.shape[0]
    tile = np.full((height + GAUGE * len(low) + 2 * MARGIN, TILE + 2 * MARGIN, 3), 32, np.uint8)
    tile[MARGIN : MARGIN + height, MARGIN : MARGIN + inner.shape[1]] = inner
    cv2.putText(tile, caption, (MARGIN + 3, MARGIN + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(
        tile, caption, (MARGIN + 3, MARGIN + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA
    )
    for dim in range(len(low)):
        y = height + MARGIN + GAUGE * dim + GAUGE // 2 + 1
        cv2.line(tile, (MARGIN, y), (MARGIN + TILE - 1, y), (90, 90, 90), 1)
        if item["action_mask"][0]:
            share = (float(item["actions"][0, dim]) - low[dim]) / (high[dim] - low[dim])
            x = MARGIN + round(np.clip(share, 0, 1) * (TILE - 1))
            cv2.rectangle(tile, (x - 2, y - 3), (x + 2, y + 3), (255, 190, 60), -1)
    return tile


def _header(data: ShardDataset, width: int) -> np.ndarray:
    header = np.full((22, width, 3), 32, np.uint8)
    text = "action that led to each frame: " + ", ".join(action_labels(data)) if data.action_dim else "no actions"
    cv2.putText(header, text, (MARGIN, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 190, 60), 1, cv2.LINE_AA)
    return header


def save_contact_sheet(path: str | Path, *args, **kwargs) -> None:
    """Writes `contact_sheet(...)` as PNG."""
    sheet = contact_sheet(*args, **kwargs)
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def verify(folder: str | Path) -> None:
    """Reads every frame once, so that every checksum is tested.

    Raises:
        ValueError: a shard is damaged; the message names it.
    """
    data = ShardDataset(folder, None, split="all")
    with tqdm(total=int(data.episode_lengths.sum()), desc="verifying", unit="frame", unit_scale=True) as progress:
        for episode, length in enumerate(data.episode_lengths):
            for start in range(0, int(length), 256):
                size = min(256, int(length) - start)
                data.window(episode, start, size)
                progress.update(size)


def inspect_shards(options: InspectOptions) -> str:
    """Describe a folder of shards, and write or check what else the options ask for.

    Raises:
        FileNotFoundError, ValueError: as `ShardDataset`; a shard is damaged.
    """
    lines = [describe(options.data_dir, options.window_size, options.stride, options.train_fraction)]
    if options.preview:
        save_contact_sheet(options.preview, options.data_dir, color_order=options.color_order)
        lines.append(f"preview: {options.preview}")
    if options.write_index:
        ShardDataset(options.data_dir, None, split="all").write_index()
    if options.verify:
        verify(options.data_dir)
        lines.append("every frame and action is intact")
    return "\n".join(lines)
