import itertools
import multiprocessing
import pickle
import resource
import signal
import threading
import time

import h5py
import numpy as np
import pytest
import torch

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.shards import ACTIONS, shard_name
from dreamer_hf.training.batches import (
    BatchStream,
    WorkerDied,
    batch_kinds,
    fixed_windows,
    open_splits,
    readable_worker_errors,
    receive,
    sample_frames,
)
from tiny import arguments_of, write_moving_square

CPU = torch.device("cpu")


def make_arguments(data_dir, **values):
    values = {"sequence_length": 4, "per_device_batch_size": 4} | values
    return arguments_of("tokenizer", data_dir=str(data_dir), **values)


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


@pytest.mark.slow
def test_a_data_loading_process_killed_at_any_moment_gives_one_sentence(data_dir):
    """While it starts, reads, sends, or waits, and while the main process receives or computes."""
    stream = BatchStream(
        open_splits(make_arguments(data_dir))[0], make_arguments(data_dir, dataloader_num_workers=1), 0, 1, CPU
    )
    for attempt in range(50):
        killer = threading.Thread(target=_kill_children, args=(attempt * 0.001,))
        with (
            pytest.raises(OSError, match=r"a data-loading process died \(.*--resume_from_checkpoint") as caught,
            readable_worker_errors(),
        ):
            killer.start()
            for _ in stream.batches(0):
                sum(range(20_000 * (attempt % 2)))
        killer.join()
        assert "\n" not in str(caught.value)


def _kill_children(delay: float) -> None:
    while not (children := multiprocessing.active_children()):
        time.sleep(0.0001)
    time.sleep(delay)
    for child in children:
        child.kill()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        EOFError(),
        ConnectionResetError(104, "Connection reset by peer"),
        FileNotFoundError(2, "No such file or directory"),
        BrokenPipeError(32, "Broken pipe"),
        pickle.UnpicklingError("pickle data was truncated"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_form_of_a_lost_connection_gives_the_same_sentence(data_dir, error):
    class Loader:
        num_workers = 1

        def __iter__(self):
            raise error

    with pytest.raises(WorkerDied, match=r"a data-loading process died \(.+\), probably because memory ran out"):
        next(receive(Loader()))


def test_a_death_that_other_code_has_wrapped_is_still_recognized():
    death = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    with pytest.raises(WorkerDied), readable_worker_errors():
        try:
            raise death
        except RuntimeError as error:
            raise OSError("writing failed") from error
    with pytest.raises(ZeroDivisionError), readable_worker_errors():
        _ = 1 / 0


def test_a_worker_without_shared_memory_ends_the_run_instead_of_hanging(data_dir):
    arguments = make_arguments(data_dir, dataloader_num_workers=1)
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # shared memory is made of files
    try:
        with pytest.raises(OSError, match=r"a data-loading process died \(.*--dataloader_num_workers"):
            next(BatchStream(open_splits(arguments)[0], arguments, 0, 1, CPU).batches(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_data_that_a_worker_refuses_gives_the_sentence_of_the_reader(tmp_path):
    folder = write_moving_square(tmp_path / "data")
    with h5py.File(folder / shard_name(0), "r+") as shard:
        shape = shard[ACTIONS].shape
        del shard[ACTIONS]  # with the checksums of its chunks
        shard[ACTIONS] = np.full(shape, np.nan, np.float32)
    arguments = make_arguments(folder, dataloader_num_workers=1)
    batches = BatchStream(open_splits(arguments)[0], arguments, 0, 1, CPU).batches(0)
    with pytest.raises(ValueError, match=r"^episode \d+ of .* not a number or infinite.*leave the episode out\.$"):
        next(batches)


@pytest.mark.slow
def test_two_processes_share_out_the_batch_of_one(data_dir):
    values = {"image_fraction": 0.4, "seed": 3}
    whole = take(data_dir, 10, **values)
    halves = [take(data_dir, 10, process=p, num_processes=2, **values | {"per_device_batch_size": 2}) for p in (0, 1)]
    for (batch, rows), (first, first_rows), (second, second_rows) in zip(whole, *halves):
        for name in batch:
            assert torch.equal(batch[name], torch.cat([first[name], second[name]]))
        assert draws(rows) == draws(first_rows) + draws(second_rows)


@pytest.mark.slow
def test_the_episodes_of_a_step_are_those_that_its_frames_show(data_dir):
    values = {"gradient_accumulation_steps": 2, "long_sequence_length": 8, "long_fraction": 0.3, "image_fraction": 0.3}
    arguments = make_arguments(data_dir, **values)
    data = open_splits(arguments)[0]
    videos = {int(data.episode_ids[p]): data.episode(p)["pixel_values_videos"] for p in range(data.num_episodes)}
    stream = BatchStream(data, arguments, 0, 1, CPU)
    batches = list(itertools.islice(stream.batches(start_step=3), 20))
    for step, first in enumerate(range(0, 20, 2), start=3):
        windows = [window for batch, _ in batches[first : first + 2] for window in batch["pixel_values_videos"]]
        shown = [{e for e, video in videos.items() if _holds(video, window)} for window in windows]
        named = set(stream.episodes(step))
        assert all(candidates & named for candidates in shown)
        assert {e for candidates in shown if len(candidates) == 1 for e in candidates} <= named
        assert len(named) <= len(windows)


def _holds(video: torch.Tensor, window: torch.Tensor) -> bool:
    return any(torch.equal(video[i : i + len(window)], window) for i in range(len(video) - len(window) + 1))


def test_no_two_rows_of_a_run_share_their_draws(data_dir):
    batches = take(data_dir, 40, long_sequence_length=8, long_fraction=0.3, image_fraction=0.3)
    seen = [value for _, rows in batches for value in draws(rows)]
    assert len(set(seen)) == len(seen)


@pytest.mark.slow
def test_kinds_of_batches_have_their_shares_and_about_the_same_number_of_frames(data_dir):
    values = {"long_sequence_length": 8, "long_fraction": 0.5, "image_fraction": 0.3}
    shares = {kind.window_size: kind.share for kind in batch_kinds(make_arguments(data_dir, **values).data)}
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


def test_impossible_shares_are_refused(data_dir):
    with pytest.raises(ValueError, match=r"expected a number from 0 to below 1 for --image_fraction, got 1\.5"):
        arguments_of("dynamics", image_fraction=1.5)
