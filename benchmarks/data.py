"""Measures conversion and reading, as ratios in one run, and prints a table for the README.

Records play in PushT (or takes an existing LeRobotDataset of 96-pixel video by --root), converts it from 10 to 5 frames
a second and to 256 pixels, and reads windows of 32 frames at random, beside the plain ways to do the same.

python benchmarks/data.py --work_dir /tmp/benchmark
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import torch
from tqdm import tqdm

from dreamer_hf.cli import run_script
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.pusht import record_pusht
from dreamer_hf.data.shard_format import METADATA_NAME, ShardIndex, ShardMetadata, shard_name

CONVERTER = Path(__file__).parents[1] / "conversion" / "lerobot_to_hdf5.py"
REPO_ID = "benchmark/pusht"
WINDOW = 32
CODECS = {
    "gzip-4, 128 frames a chunk": (128, {"compression": "gzip", "compression_opts": 4}),
    "gzip-1, 8": (8, {"compression": "gzip", "compression_opts": 1}),
    "LZ4, 8": (8, {**hdf5plugin.LZ4(), "fletcher32": True}),
    "Zstd-1, 8 (chosen)": (8, {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}),
    "Zstd-1, 4": (4, {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}),
    "Zstd-3, 8": (8, {**hdf5plugin.Zstd(clevel=3), "fletcher32": True}),
    "Zstd-1, 16": (16, {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}),
    "Zstd-1, 8, 64 MB chunk cache": (8, {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}),
    "none, 8": (8, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="new folder for everything that is written")
    parser.add_argument("--root", type=Path, help="existing dataset with episodes of at least 256 frames")
    parser.add_argument("--episodes", type=int, default=32, help="to record, of 300 frames each (default %(default)s)")
    parser.add_argument("--num_workers", type=int, default=2, help="of the converter (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work_dir.mkdir(parents=True)
    root = args.root or record_pusht(REPO_ID, args.work_dir / "recorded", args.episodes, 300)
    rows = measure_conversion(root, args.work_dir, args.num_workers)
    frames = read_all(args.work_dir / "large0")
    noisy = np.stack([add_noise(episode, np.random.default_rng(number)) for number, episode in enumerate(frames)])
    codecs = measure_codecs({"PushT": frames, "noisy": noisy}, args.work_dir)
    rows += measure_reading(args.work_dir / "large0", codecs) + measure_opening(args.work_dir / "sparse")
    print("\n| what | measured |\n| --- | --- |")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))
    print(
        "\n| codec, frames a chunk | read PushT / noisy | size PushT / noisy | write PushT / noisy |\n| --- | --- | --- | --- |"
    )
    for name, results in codecs.items():
        columns = [" / ".join(f"{result[key]:.0f}" for result in results) for key in ("read", "size", "write")]
        print(f"| {name} | {columns[0]} frames/s | {columns[1]} MB | {columns[2]} frames/s |")


def measure_conversion(root: Path, work_dir: Path, num_workers: int) -> list[tuple[str, str]]:
    """The slope between a small and a large job, so that start-up does not hide the speed; best of three, as of the loop.

    On a machine with other work, processor time (in brackets) is the fairer figure: frames a second of one core.
    """
    info = json.loads((root / "meta" / "info.json").read_text())
    episodes, frames = info["total_episodes"], info["total_frames"]
    small = max(num_workers, episodes // 8)
    runs = []
    for repeat in range(3):
        jobs = {"small": small, "large": episodes}
        runs.append([time_converter(root, work_dir / f"{n}{repeat}", c, small, num_workers) for n, c in jobs.items()])
    best = np.array(runs)[..., :2].min(axis=0)  # small and large, wall and processor seconds
    extra = frames * (episodes - small) / episodes
    wall, cpu = extra / (best[1] - best[0])
    plain_wall, plain_cpu = np.max([time_plain_loop(root) for _ in range(3)], axis=0)
    return [
        (f"conversion, {num_workers} processes", f"{wall:.0f} source frames/s ({cpu:.0f} a core)"),
        ("plain loop over `dataset[i]`", f"{plain_wall:.0f} source frames/s ({plain_cpu:.0f} a core)"),
        (
            "conversion against plain loop",
            f"{wall / plain_wall:.1f} times ({num_workers * cpu / plain_cpu:.1f} by processor time)",
        ),
        ("start-up of the converter", f"{best[0, 0] - (frames - extra) / wall:.1f} s"),
        ("memory of the largest converting process", f"{max(run[1][2] for run in runs):.0f} MiB"),
    ]


def time_converter(
    root: Path, output: Path, episodes: int, chunk: int, num_workers: int
) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MiB of converting the first `episodes`."""
    command = [
        sys.executable,
        str(CONVERTER),
        "--repo_id",
        REPO_ID,
        "--local_dir",
        str(root),
        "--output_dir",
        str(output),
    ]
    command += ["--episodes", f"0:{episodes}", "--episodes_per_shard", str(max(1, chunk // num_workers))]
    command += ["--num_workers", str(num_workers), "--target_fps", "5", "--width", "256", "--height", "256"]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, processor, after.ru_maxrss / 1024


def time_plain_loop(root: Path, count: int = 600) -> tuple[float, float]:
    """Frames a second, and frames a second of processor time, of the way everybody writes first."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(REPO_ID, root=root, video_backend="pyav")
    dataset[0]
    start, processor = time.perf_counter(), time.process_time()
    for i in tqdm(range(1, count + 1), desc="plain loop"):
        dataset[i]
    return count / (time.perf_counter() - start), count / (time.process_time() - processor)


def read_all(folder: Path) -> np.ndarray:
    data = ShardDataset(folder, None, split="all")
    length = int(data.episode_lengths.min())
    episodes = [data.window(i, 0, length)["pixel_values_videos"] for i in range(min(10, data.num_episodes))]
    return torch.stack(episodes).permute(0, 1, 3, 4, 2).numpy()


def add_noise(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera adds: noise of one gray level, which no codec can foresee."""
    noise = rng.standard_normal(frames.shape, np.float32).round().astype(np.int16)
    return (frames + noise).clip(0, 255).astype(np.uint8)


def measure_codecs(datasets: dict[str, np.ndarray], work_dir: Path) -> dict[str, list[dict[str, float]]]:
    results = {}
    for name, (chunk, filters) in tqdm(CODECS.items(), desc="codecs"):
        cache = 64 << 20 if "cache" in name else 0
        results[name] = [
            measure_codec(frames, chunk, filters, work_dir / "codec.h5", cache) for frames in datasets.values()
        ]
    return results


def measure_codec(frames: np.ndarray, chunk: int, filters: dict, path: Path, cache: int) -> dict[str, float]:
    """Frames a second of one core's time, read and written, and MB on disk."""
    episodes, length, *shape = frames.shape
    start = time.process_time()
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        chunks = (1, min(chunk, length), *shape)
        dataset = file.create_dataset("images", frames.shape, "u1", chunks=chunks, **filters)
        for number, episode in enumerate(frames):
            dataset[number] = episode
    write = episodes * length / (time.process_time() - start)
    rng, out, count, start = np.random.default_rng(1), np.empty((WINDOW, *shape), np.uint8), 0, time.process_time()
    with h5py.File(path, "r", rdcc_nbytes=cache) as file:
        dataset = file["images"]
        while (seconds := time.process_time() - start) < 2 or count < 8:
            first = rng.integers(length - WINDOW + 1)
            dataset.read_direct(out, np.s_[rng.integers(episodes), first : first + WINDOW])
            count += 1
    size = path.stat().st_size / 1e6
    path.unlink()
    return {"read": count * WINDOW / seconds, "size": size, "write": write}


def measure_reading(folder: Path, codecs: dict) -> list[tuple[str, str]]:
    """Whole items of `ShardDataset`, against the frames alone out of long gzip chunks."""
    data = ShardDataset(folder, WINDOW, split="all")
    order = np.random.default_rng(0).permutation(len(data))[:400]
    data[int(order[0])]
    start, processor = time.perf_counter(), time.process_time()
    for index in order:
        data[int(index)]
    speed = len(order) * WINDOW / (time.perf_counter() - start)
    core_speed = len(order) * WINDOW / (time.process_time() - processor)
    gzip, chosen = codecs["gzip-4, 128 frames a chunk"], codecs["Zstd-1, 8 (chosen)"]
    ratios = [ours["read"] / theirs["read"] for ours, theirs in zip(chosen, gzip)]
    sizes = [ours["size"] / theirs["size"] for ours, theirs in zip(chosen, gzip)]
    return [
        (
            f"items of {WINDOW} frames at random, one core",
            f"{speed:.0f} frames/s ({core_speed:.0f} by processor time)",
        ),
        ("frames read, against gzip-4 in 128-frame chunks", f"{ratios[0]:.1f} times as fast ({ratios[1]:.1f} noisy)"),
        ("size, against gzip-4 in 128-frame chunks", f"{sizes[0]:.2f} ({sizes[1]:.2f} noisy)"),
    ]


def measure_opening(folder: Path, num_shards: int = 10_000, episodes_per_shard: int = 100) -> list[tuple[str, str]]:
    """Opening reads the index alone, so empty files serve as shards."""
    folder.mkdir()
    count = num_shards * episodes_per_shard
    for shard in range(num_shards):
        (folder / shard_name(shard)).touch()
    shards = np.repeat(np.arange(num_shards, dtype=np.int32), episodes_per_shard)
    lengths = np.random.default_rng(0).integers(50, 400, count, dtype=np.int32)
    ShardIndex(shards, lengths, np.arange(count), np.ones(count, bool)).write(folder)
    ShardMetadata(num_shards, count, (256, 256, 3), (7,)).write(folder)
    start = time.perf_counter()
    data = ShardDataset(folder, WINDOW)
    seconds = time.perf_counter() - start
    assert (folder / METADATA_NAME).exists() and len(data) > count
    return [(f"opening {num_shards} shards, {count} episodes", f"{seconds:.2f} s")]


if __name__ == "__main__":
    run_script(main)
