import itertools
import multiprocessing

import h5py
import numpy as np
import pytest
import torch

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.shard_format import ACTIONS, shard_name
from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments
from dreamer_hf.training.data import (
    BatchStream,
    as_pixels,
    batch_kinds,
    fixed_windows,
    open_splits,
    sample_frames,
    worker_failures_told,
)
from tiny import write_moving_square

CPU = torch.device("cpu")


def make_arguments(data_dir, **values) -> TokenizerArguments:
    return TokenizerArguments(str(data_dir), "out", **{"sequence_length": 4, "per_device_batch_size": 4} | values)


def take(data_dir, count, start_step=0, process=0, num_processes=1, **values) -> list:
    arguments = make_arguments(data_dir, **values)
    stream = BatchStream(open_splits(arguments)[0], arguments, process, num_processes, CPU)
    return list(itertools.islice(stream.batches(start_step), count))


def draws(rows) -> list[float]:
    return [torch.rand((), generator=generator).item() for _, generator in rows.generators(CPU)]


def test_the_stream_can_begin_at_any_step(data_dir):
    values = {"gradient_accumulation_steps": 2, "long_sequence_length": 8, "long_fraction": 0.3, "image_fraction": 0.3}
    whole, late = take(data_dir, 12, **values), take(data_dir, 6, start_step=3, **values)
    assert [rows.step for _, rows in whole] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for (batch, rows), (later_batch, later_rows) in zip(whole[6:], late):
        assert rows == later_rows
        assert all(torch.equal(batch[name], later_batch[name]) for name in batch)


def test_a_reading_process_that_dies_is_told_in_one_sentence(data_dir):
    arguments = make_arguments(data_dir, dataloader_num_workers=1)
    batches = BatchStream(open_splits(arguments)[0], arguments, 0, 1, CPU).batches(0)
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
    with (
        pytest.raises(OSError, match=r"a process that reads data died.*--resume_from_checkpoint"),
        worker_failures_told(),
    ):
        for _ in range(100):
            next(batches)


def test_what_a_reading_process_refuses_is_told_in_its_own_sentence(tmp_path):
    folder = write_moving_square(tmp_path / "data")
    with h5py.File(folder / shard_name(0), "r+") as shard:
        shard[ACTIONS][:] = np.nan
    arguments = make_arguments(folder, dataloader_num_workers=1)
    batches = BatchStream(open_splits(arguments)[0], arguments, 0, 1, CPU).batches(0)
    told = r"^episode \d+ of .* not a number or infinite.*leave the episode out\.$"
    with pytest.raises(ValueError, match=told), worker_failures_told():
        next(batches)


def test_two_processes_share_out_the_batch_of_one(data_dir):
    values = {"image_fraction": 0.4, "seed": 3}
    whole = take(data_dir, 10, **values)
    halves = [take(data_dir, 10, process=p, num_processes=2, **values | {"per_device_batch_size": 2}) for p in (0, 1)]
    for (batch, rows), (first, first_rows), (second, second_rows) in zip(whole, *halves):
        for name in batch:
            assert torch.equal(batch[name], torch.cat([first[name], second[name]]))
        assert draws(rows) == draws(first_rows) + draws(second_rows)


def test_the_episodes_of_a_step_are_those_that_its_frames_show(data_dir):
    values = {"gradient_accumulation_steps": 2, "long_sequence_length": 8, "long_fraction": 0.3, "image_fraction": 0.3}
    arguments = make_arguments(data_dir, **values)
    data = open_splits(arguments)[0]
    films = {int(data.episode_ids[p]): data.episode(p)["pixel_values_videos"] for p in range(data.num_episodes)}
    stream = BatchStream(data, arguments, 0, 1, CPU)
    batches = list(itertools.islice(stream.batches(start_step=3), 20))
    for step, first in enumerate(range(0, 20, 2), start=3):
        windows = [window for batch, _ in batches[first : first + 2] for window in batch["pixel_values_videos"]]
        shown = [{e for e, film in films.items() if _holds(film, window)} for window in windows]
        named = set(stream.episodes(step))
        assert all(candidates & named for candidates in shown)
        assert {e for candidates in shown if len(candidates) == 1 for e in candidates} <= named
        assert len(named) <= len(windows)


def _holds(film: torch.Tensor, window: torch.Tensor) -> bool:
    return any(torch.equal(film[i : i + len(window)], window) for i in range(len(film) - len(window) + 1))


def test_no_two_rows_of_a_run_share_their_draws(data_dir):
    batches = take(data_dir, 40, long_sequence_length=8, long_fraction=0.3, image_fraction=0.3)
    seen = [value for _, rows in batches for value in draws(rows)]
    assert len(set(seen)) == len(seen)


def test_kinds_of_batches_have_their_shares_and_about_the_same_number_of_frames(data_dir):
    values = {"long_sequence_length": 8, "long_fraction": 0.5, "image_fraction": 0.3}
    shares = {kind.window_size: kind.share for kind in batch_kinds(make_arguments(data_dir, **values))}
    assert shares == pytest.approx({4: 0.35, 8: 0.35, 1: 0.3})
    batches = take(data_dir, 300, **values)
    shapes = [tuple(batch["actions"].shape[:2]) for batch, _ in batches]
    assert set(shapes) == {(4, 4), (2, 8), (16, 1)}
    assert shapes.count((16, 1)) == pytest.approx(90, abs=25)
    for batch, _ in batches:
        if batch["actions"].shape[1] == 1:
            assert not batch["action_mask"].any()  # a first frame: no command led to it
        else:
            assert batch["action_mask"][:, 1:].all()


def test_a_stride_and_a_plain_stream_cover_an_epoch(data_dir):
    arguments = make_arguments(data_dir, stride=4, per_device_batch_size=1)
    data = open_splits(arguments)[0]
    batches = take(data_dir, len(data), stride=4, per_device_batch_size=1)
    seen = {batch["pixel_values_videos"].numpy().tobytes() for batch, _ in batches}
    assert seen == {item["pixel_values_videos"].numpy().tobytes() for item in data}


def test_fixed_windows_are_spread_and_never_repeat(data_dir):
    data = ShardDataset(data_dir, 4, split="validation")
    batches = fixed_windows(data, count=1000, batch_size=8)
    assert sum(len(batch["actions"]) for batch in batches) == len(data)
    assert sum(len(batch["actions"]) for batch in fixed_windows(data, count=5, batch_size=2)) == 5
    frames = sample_frames(data, count=6)
    assert frames.shape == (6, 3, 16, 16) and frames.dtype == torch.uint8
    assert as_pixels(frames).max() <= 1


def test_impossible_shares_are_refused(data_dir):
    with pytest.raises(ValueError, match=r"image_fraction=1\.5 is impossible"):
        DynamicsArguments(str(data_dir), "out", tokenizer="t", image_fraction=1.5)
