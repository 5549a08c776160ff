"""Measure conversion and reading, as ratios in one run, for README and docs/decisions/0007-shard-codec.md.

Prints the tables of these files. Records play in PushT at 96 pixels, encoded with the defaults of LeRobot (or takes an
existing LeRobotDataset of such video with --root), repeats it to make one long dataset, converts that from 10 to 5
frames per second and to 256 pixels, and reads windows of 32 frames at random. Times the straightforward ways to do the
same for comparison. Takes about three minutes on two idle cores.

python benchmarks/data.py --work_dir /tmp/benchmark
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import torch
from tqdm import tqdm

from benchmark_tools import print_table
from dreamer_hf.cli import run_script
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.shards import METADATA_NAME, ShardIndex, ShardMetadata, shard_name
from dreamer_hf.pusht.record import record_pusht

CONVERTER = Path(__file__).parents[1] / "conversion" / "lerobot_to_hdf5.py"
REPO_ID = "benchmark/pusht"
WINDOW = 32
STOPWATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
wall, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""
"""Runs in a small process: a process begins with the peak memory of the one that starts it."""
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
    parser.add_argument("--episodes", type=int, default=16, help="to record, of 300 frames each (default %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=6, help="join the recording so many times (default %(default)s)"
    )
    parser.add_argument("--num_workers", type=int, default=2, help="of the converter (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    args.work_dir.mkdir(parents=True)
    root = args.root or record_pusht(
        REPO_ID, args.work_dir / "recorded", args.episodes, 300, image_size=96, video_quality=None
    )
    root = repeat(root, args.repeats, args.work_dir / "long")
    conversion, memory = measure_conversion(root, args.work_dir, args.num_workers)
    frames = read_all(args.work_dir / "large0")
    noisy = np.stack([add_noise(episode, np.random.default_rng(number)) for number, episode in enumerate(frames)])
    codecs = measure_codecs({"PushT": frames, "noisy": noisy}, args.work_dir)
    rows = [
        *conversion,
        *measure_reading(args.work_dir / "large0", codecs),
        *measure_opening(args.work_dir / "sparse"),
    ]
    print_table(("what", "measured"), [*rows, memory])
    columns = ("read PushT / noisy", "size PushT / noisy", "write PushT / noisy")
    print_table(("codec, frames a chunk", *columns), [describe_codec(name, codecs[name]) for name in codecs])


def repeat(root: Path, times: int, destination: Path) -> Path:
    """One dataset that holds the episodes of `root` so many times; video is copied, not encoded again."""
    from lerobot.datasets.aggregate import aggregate_datasets

    aggregate_datasets([REPO_ID] * times, REPO_ID, roots=[root] * times, aggr_root=destination)
    return destination


def measure_conversion(root: Path, work_dir: Path, num_workers: int) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """The slope between a small and a large job, so that start-up does not hide the speed; best of three.

    On a machine with other work, processor time (in brackets) is the fairer figure.
    """
    info = json.loads((root / "meta" / "info.json").read_text())
    episodes, frames = info["total_episodes"], info["total_frames"]
    small = max(2 * num_workers, episodes // 8)
    per_shard = small // (2 * num_workers)
    runs = []
    for number in range(3):
        jobs = {work_dir / f"small{number}": small, work_dir / f"large{number}": episodes}
        runs.append([time_converter(root, output, count, per_shard, num_workers) for output, count in jobs.items()])
        for output in jobs if number else ():
            shutil.rmtree(output)
    best = np.array(runs)[..., :2].min(axis=0)  # small and large, wall and processor seconds
    extra = frames * (episodes - small) / episodes
    wall, cpu = extra / (best[1] - best[0])
    plain_wall, plain_cpu = np.max([time_plain_loop(root) for _ in range(3)], axis=0)
    ratio, cpu_ratio = wall / plain_wall, num_workers * cpu / plain_cpu
    job = f"LeRobot -> shards (10 to 5 frames/s, 96 to 256 pixels), {num_workers} processes"
    plain = f"a plain `dataset[i]` loop ({cpu_ratio:.1f}x by processor time)"
    return [
        (job, f"{wall:,.0f} source frames/s, {ratio:.1f}x {plain}"),
        ("start-up of the converter", f"{best[0, 0] - (frames - extra) / wall:.1f} s"),
    ], ("memory of a converting process", f"{max(run[1][2] for run in runs):.0f} MiB at most")


def time_converter(
    root: Path, output: Path, episodes: int, per_shard: int, num_workers: int
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
    command += ["--episodes", f"0:{episodes}", "--episodes_per_shard", str(per_shard)]
    command += ["--num_workers", str(num_workers), "--target_fps", "5", "--width", "256", "--height", "256"]
    measured = subprocess.run(
        [sys.executable, "-c", STOPWATCH, *command], check=True, capture_output=True, text=True
    ).stdout
    wall, processor, memory = map(float, measured.split())
    return wall, processor, memory


def time_plain_loop(root: Path, count: int = 600) -> tuple[float, float]:
    """Return the frames per second, and per second of CPU time, of the straightforward loop."""
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
    """Return the frames per second of CPU time, read and written, and the MB on disk."""
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


def describe_codec(name: str, results: list[dict[str, float]]) -> tuple[str, ...]:
    read, size, write = (" / ".join(f"{result[key]:.0f}" for result in results) for key in ("read", "size", "write"))
    return name, f"{read} frames/s", f"{size} MB", f"{write} frames/s"


def measure_reading(folder: Path, codecs: dict) -> list[tuple[str, str]]:
    """Whole items of `ShardDataset` by the clock; the frames alone, in processor time, against long gzip chunks."""
    data = ShardDataset(folder, WINDOW, split="all")
    order = np.random.default_rng(0).permutation(len(data))[:400]
    data[int(order[0])]
    start = time.perf_counter()
    for index in order:
        data[int(index)]
    speed = len(order) * WINDOW / (time.perf_counter() - start)
    gzip, chosen = codecs["gzip-4, 128 frames a chunk"], codecs["Zstd-1, 8 (chosen)"]
    (ratio, noisy_ratio), (size, noisy_size) = (
        [ours["read"] / theirs["read"] for ours, theirs in zip(chosen, gzip)],
        [ours["size"] / theirs["size"] for ours, theirs in zip(chosen, gzip)],
    )
    against = f"{ratio:.1f}x gzip-4 in 128-frame chunks, at {size:.2f} of its size"
    return [
        (f"{WINDOW}-frame windows at random, one core", f"{speed:,.0f} frames/s, {against}"),
        ("the same with camera-like noise", f"{noisy_ratio:.1f}x, at {noisy_size:.2f} of the size"),
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
    return [(f"opening {num_shards:,} shards of {episodes_per_shard} episodes", f"{seconds:.2f} s")]


if __name__ == "__main__":
    run_script(main)
