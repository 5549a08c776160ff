import json
import multiprocessing
import pickle
import shutil
import time

import h5py
import hdf5plugin
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dreamer_hf.data import ShardDataset, collate_windows
from dreamer_hf.data.files import json_checksum
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardIndex, ShardMetadata, read_shard_index
from tiny import TINY_LENGTHS, tiny_episodes, tiny_frame


@pytest.fixture
def shards(tiny_shards, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(tiny_shards, tmp_path / "shards")


def edit_metadata(folder, **changes):
    path = folder / "metadata.json"
    content = json.loads(path.read_text()) | changes
    content = {key: value for key, value in content.items() if value is not None and key != "checksum"}
    path.write_text(json.dumps(content))


def test_items_show_the_recorded_frames_in_rgb(tiny_shards):
    dataset = ShardDataset(tiny_shards, window_size=8, split="all")
    item = dataset[3]
    assert item["pixel_values_videos"].shape == (8, 3, 32, 32) and item["pixel_values_videos"].dtype == torch.uint8
    positions, _ = next(iter(tiny_episodes()))
    original = np.stack([tiny_frame(position) for position in positions[3:11]])
    difference = item["pixel_values_videos"].permute(0, 2, 3, 1).numpy().astype(float) - original
    assert np.abs(difference).mean() < 12  # AV1 blurs edges; exchanged colors would differ by more than 60.


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_actions_are_aligned_by_the_offset_across_window_starts(tiny_shards, offset):
    dataset = ShardDataset(tiny_shards, window_size=5, split="all", action_offset=offset)
    actions = [actions for _, actions in tiny_episodes()]
    for start in range(6):
        item = dataset[start]
        for i in range(5):
            stored = start + i - offset
            assert bool(item["action_mask"][i]) == (stored >= 0)
            expected = actions[0][stored] if stored >= 0 else np.zeros(2)
            np.testing.assert_array_equal(item["actions"][i].numpy(), expected)


def test_windows_cover_every_start_and_never_cross_an_episode(tiny_shards):
    dataset = ShardDataset(tiny_shards, window_size=10, stride=3, split="all")
    assert len(dataset) == sum((length - 10) // 3 + 1 for length in TINY_LENGTHS)
    whole = [dataset.episode(i)["pixel_values_videos"] for i in range(dataset.num_episodes)]
    assert [len(episode) for episode in whole] == list(TINY_LENGTHS)
    expected = [episode[s : s + 10] for episode in whole for s in range(0, len(episode) - 9, 3)]
    for index, window in enumerate(expected):
        assert torch.equal(dataset[index]["pixel_values_videos"], window)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_splits_are_by_episode_and_do_not_depend_on_the_window(tiny_shards):
    def ids(split, **options):
        return ShardDataset(tiny_shards, split=split, train_fraction=0.67, **options).episode_ids.tolist()

    train, validation = ids("train", window_size=4), ids("validation", window_size=4)
    assert sorted(train + validation) == list(range(6)) and len(train) == 4
    assert train == ids("train", window_size=20, stride=7)
    assert any(train != ids("train", window_size=4, split_seed=seed) for seed in range(5))


def test_attributes_describe_the_data(tiny_shards):
    dataset = ShardDataset(tiny_shards, window_size=4, split="all")
    actions = np.concatenate([actions for _, actions in tiny_episodes()])
    assert dataset.image_size == (32, 32) and dataset.num_channels == 3 and dataset.action_dim == 2
    assert dataset.fps == 10 and dataset.action_names == ["step_x", "step_y"] and dataset.action_offset == 1
    np.testing.assert_allclose(dataset.action_stats["mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.action_stats["std"], actions.std(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.action_stats["max"], actions.max(0), rtol=1e-6)


@pytest.mark.slow
def test_handles_survive_forked_and_spawned_workers_and_pickling(tiny_shards):
    dataset = ShardDataset(tiny_shards, window_size=6, split="all")
    before = [dataset[i]["pixel_values_videos"] for i in range(len(dataset))]  # opens the shards in this process
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[7]["pixel_values_videos"], before[7])
    for method in ("fork", "spawn"):
        loader = DataLoader(
            dataset,
            16,
            num_workers=2,
            multiprocessing_context=method,
            collate_fn=collate_windows,
            persistent_workers=False,
        )
        batches = torch.cat([batch["pixel_values_videos"] for batch in loader])
        assert torch.equal(batches, torch.stack(before))


def test_few_shards_stay_open(tiny_shards, monkeypatch):
    monkeypatch.setattr("dreamer_hf.data.shard_dataset.MAX_OPEN_SHARDS", 1)
    dataset = ShardDataset(tiny_shards, window_size=6, split="all")
    last, first = dataset[len(dataset) - 1], dataset[0]
    assert len(dataset._handles) == 1
    assert torch.equal(dataset[len(dataset) - 1]["actions"], last["actions"])
    assert torch.equal(dataset[0]["actions"], first["actions"])


def test_foreign_shards_are_read_with_their_sparse_metadata(tmp_path):
    """As the reference's converters leave them: gzip, no index, stringified shapes, "N/A", BGR."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 12, 8, 8, 3), np.uint8)
    actions = rng.normal(size=(3, 12, 2)).astype(np.float32)
    actions[2, 5, 1] = np.inf
    with h5py.File(tmp_path / "shard_0000.h5", "w") as file:
        file.create_dataset("images", data=frames, compression="gzip", chunks=(1, 12, 8, 8, 3))
        file.create_dataset("actions", data=actions)
        file.create_dataset("episode_lengths", data=np.array([12, 9, 12], np.int32))
        file.attrs["num_episodes"] = 3
    metadata = {"num_shards": 1, "total_episodes": 3, "image_shape": "(8, 8, 3)", "action_shape": "N/A"}
    (tmp_path / "metadata.json").write_text(
        json.dumps(metadata | {"relative_actions": False, "relative_mode": "step"})
    )
    dataset = ShardDataset(tmp_path, window_size=4, split="all", color_order="bgr")
    assert len(dataset) == 9 + 6 + 9 and dataset.action_dim == 2 and dataset.fps is None
    item = dataset[9]
    np.testing.assert_array_equal(item["pixel_values_videos"].permute(0, 2, 3, 1).numpy(), frames[1, :4, ..., ::-1])
    np.testing.assert_array_equal(item["actions"][1:].numpy(), actions[1, :3])
    assert torch.isfinite(dataset[15 + 1]["actions"]).all()  # carries actions 0 to 3 of the last episode
    with pytest.raises(ValueError, match=r"episode 2 of .* has an action among frames 3 to 6 that is not a number"):
        dataset[15 + 4]


def test_latent_shards_are_read_by_the_same_class(tmp_path):
    latents = np.random.default_rng(0).normal(size=(20, 4, 8)).astype(np.float16)
    with write_shard(tmp_path / "shard_0000.h5", action_dim=1, kind="latents") as writer:
        writer.begin_episode(0)
        for frame in latents:
            writer.add_frame(frame)
        writer.end_episode(np.zeros((20, 1), np.float32))
    metadata = {"num_shards": 1, "total_episodes": 1, "tokenizer_fingerprint": "abc", "latent_shape": [4, 8]}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    dataset = ShardDataset(tmp_path, window_size=5, split="all")
    assert dataset[2]["latents"].dtype == torch.float16 and dataset.image_size is None
    np.testing.assert_array_equal(dataset[2]["latents"].numpy(), latents[2:7])


def test_episodes_without_actions_are_masked(tmp_path):
    with write_shard(tmp_path / "shard_0000.h5", action_dim=2) as writer:
        for number, actions in enumerate([None, np.ones((6, 2), np.float32)]):
            writer.begin_episode(number)
            for _ in range(6):
                writer.add_frame(np.zeros((8, 8, 3), np.uint8))
            writer.end_episode(actions)
    (tmp_path / "metadata.json").write_text(json.dumps({"num_shards": 1, "total_episodes": 2}))
    dataset = ShardDataset(tmp_path, window_size=6, split="all")
    assert not dataset[0]["action_mask"].any() and dataset[1]["action_mask"].tolist() == [False] + [True] * 5


def test_truncated_shard_is_refused(shards):
    path = shards / "shard_0001.h5"
    path.write_bytes(path.read_bytes()[:-200])
    dataset = ShardDataset(shards, window_size=8, split="all")
    with pytest.raises(ValueError, match=r"shard_0001.h5 is truncated or damaged"):
        [dataset.episode(i) for i in range(6)]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda d: (d / "metadata.json").unlink(), FileNotFoundError, "metadata.json is missing"),
        (lambda d: (d / "metadata.json").write_text("{"), ValueError, "not valid JSON"),
        (lambda d: (d / "shard_0002.h5").unlink(), FileNotFoundError, "lacks shard_0002.h5"),
        (lambda d: edit_metadata(d, total_episodes=7), ValueError, "promises 7 episodes"),
        (lambda d: edit_metadata(d, num_shards=None), ValueError, "expected a number of shards for 'num_shards'"),
        (lambda d: edit_metadata(d, image_shape=[64, 64, 3]), ValueError, "contradicts the metadata"),
        (lambda d: edit_metadata(d, action_shape="what"), ValueError, "expected a shape for 'action_shape'"),
        (lambda d: (d / "index.npz").write_bytes(b"no zip"), ValueError, "index.npz is damaged"),
    ],
)
def test_bad_folders_are_refused_with_one_sentence(shards, damage, error, message):
    damage(shards)
    with pytest.raises(error, match=message) as caught:
        dataset = ShardDataset(shards, window_size=8, split="all")
        [dataset[i] for i in range(len(dataset))]
    assert "\n" not in str(caught.value)


def test_metadata_changed_by_accident_fails_its_checksum(shards):
    path = shards / "metadata.json"
    path.write_text(path.read_text().replace('"fps": 10.0', '"fps": 70.0'))
    with pytest.raises(ValueError, match="does not match its checksum"):
        ShardDataset(shards, window_size=8)


def test_a_window_longer_than_every_episode_is_refused(tiny_shards):
    with pytest.raises(ValueError, match=r"window of 41 frames \(the longest has 40\)"):
        ShardDataset(tiny_shards, window_size=41, split="all")


def read_in_child(dataset, queue):
    queue.put(dataset[0]["actions"].sum().item())


def test_a_forked_child_opens_its_own_handles(tiny_shards):
    dataset = ShardDataset(tiny_shards, window_size=6, split="all")
    expected = dataset[0]["actions"].sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(dataset, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()
    assert dataset[0]["actions"].sum().item() == expected


def rewritten(folder, change):
    """Lets `change(file)` edit the second shard."""
    with h5py.File(folder / "shard_0001.h5", "a") as file:
        change(file)
    return folder


def replace_by_link(link):
    def change(file):
        del file["images"]
        file["images"] = link

    return change


def move_out(file):
    shape = file["images"].shape
    del file["images"]
    size = int(np.prod(shape))
    file.create_dataset("images", shape, np.uint8, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)] if size else None)


def make_virtual(file):
    shape = file["images"].shape
    del file["images"]
    layout = h5py.VirtualLayout(shape, np.uint8)
    layout[:] = h5py.VirtualSource("shard_0000.h5", "images", shape)
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        move_out,
        make_virtual,
        replace_by_link(h5py.ExternalLink("shard_0000.h5", "images")),
        replace_by_link(h5py.ExternalLink("/etc/passwd", "images")),
        replace_by_link(h5py.SoftLink("/actions")),
    ],
    ids=["external storage", "virtual", "external link", "external link elsewhere", "soft link"],
)
def test_a_shard_cannot_show_other_files(shards, change, has_index):
    rewritten(shards, change)
    if not has_index:
        (shards / "index.npz").unlink()
    dataset = ShardDataset(shards, window_size=8, split="all")
    with pytest.raises(
        ValueError, match=r"shard_0001.h5 is truncated or damaged \('images' (is a link|lies in another)"
    ):
        dataset.episode(2)


@pytest.mark.parametrize("key", ["actions", "episode_lengths", "source_episodes", "labelled"])
def test_no_array_of_a_shard_may_be_a_link(shards, key):
    def change(file):
        del file[key]
        file[key] = h5py.ExternalLink("shard_0000.h5", key)

    rewritten(shards, change)
    with pytest.raises(ValueError, match=f"'{key}' is a link to another place"):
        ShardDataset(shards, window_size=8, split="all").episode(2)
    (shards / "index.npz").unlink()
    with pytest.raises(ValueError, match=f"'{key}' is a link to another place"):
        ShardDataset(shards, window_size=8, split="all").episode(2)


def put(key, value):
    def change(file):
        del file[key]
        if value is None:
            file.create_group(key)
        else:
            file[key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("images", None),
        put("images", np.zeros((2, 33, 32, 32, 3), np.int16)),
        put("images", np.zeros((2, 33, 32, 32), np.uint8)),
        put("actions", None),
        put("actions", np.full((2, 33, 2), b"ab")),
        put("episode_lengths", np.int32(5)),
        put("episode_lengths", np.array([27.0, np.nan])),
        put("episode_lengths", np.array([b"a", b"b"])),
        put("episode_lengths", np.array([-27, 33])),
        put("episode_lengths", np.array([2**40, 33])),
        put("source_episodes", np.zeros((2, 2), int)),
        put("labelled", np.ones(3, np.uint8)),
        put("actions", h5py.Empty("f4")),
    ],
)
def test_arrays_that_are_something_else_are_refused(shards, change):
    rewritten(shards, change)
    for has_index in (True, False):
        if not has_index:
            (shards / "index.npz").unlink()
        with pytest.raises(ValueError, match=r"shard_0001.h5|promises 6 episodes") as caught:
            ShardDataset(shards, window_size=8, split="all").episode(2)
        assert "\n" not in str(caught.value)


def test_actions_that_float32_does_not_hold_are_refused(shards):
    values = np.zeros((2, 33, 2))
    values[0, 4] = 1e39
    rewritten(shards, put("actions", values))
    with pytest.raises(ValueError, match=r"episode 2 of .* has an action among frames"):
        ShardDataset(shards, window_size=8, split="all").episode(2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_shards", 10**9), ("num_shards", 10**30), ("num_shards", True), ("num_shards", -1), ("num_shards", "3"),
        ("total_episodes", 10**12), ("image_shape", [float("inf")] * 3), ("image_shape", [10**9, 10**9, 3]),
        ("image_shape", [0, 32, 3]), ("image_shape", [32, 32, 4]), ("image_shape", "((((((" * 10_000),
        ("action_shape", [1e400]),
        ("fps", "ten"), ("fps", float("nan")), ("fps", 0), ("fps", -5), ("fps", [1]), ("fps", True),
        ("action_names", "ab"), ("action_names", ["a"]), ("action_names", [1, 2]), ("action_units", ["mm"]),
        ("action_stats", {}), ("action_stats", []), ("action_stats", {"mean": [0.0], "std": [1.0]}),
        ("action_stats", {"mean": [0.0, float("nan")], "std": [1.0, 1.0]}),
        ("action_stats", {"mean": [0, 0], "std": [1, -1]}),
        ("action_stats", {"mean": [0, 0], "std": [1, 1], "min": "ab", "max": [0, 0]}),
        ("color_order", "xyz"), ("relative_actions", "no"), ("relative_actions", 2), ("format_version", 99),
        ("format_version", "1"), ("action_offset", 1), ("action_offset", "0"), ("conversion", 5),
        ("conversion", {"absolute_action_dims": "all"}),
        ("frames_per_shard", ["a"]), ("tokenizer_fingerprint", 5), ("latent_shape", [4]),
    ],
)  # fmt: skip
def test_impossible_values_in_the_metadata_are_refused(shards, key, value):
    edit_metadata(shards, **{key: value})
    start = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        ShardDataset(shards, window_size=8, split="all")
    message = str(caught.value)
    assert (
        "\n" not in message and len(message) < 500 and ("metadata.json" in message or "lacks shard_0003.h5" in message)
    )
    assert time.monotonic() - start < 5


def write_index(folder, **arrays):
    count = 6
    index = {
        "shards": np.repeat(np.arange(3), 2),
        "lengths": np.array(TINY_LENGTHS),
        "source_episodes": np.arange(count),
    }
    np.savez(folder / "index.npz", **index | {"labelled": np.ones(count, bool)} | arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {"lengths": np.array(["a"] * 6)}, {"lengths": np.array(5)}, {"lengths": np.full(6, np.nan)},
        {"lengths": np.zeros((6, 2), int)}, {"lengths": np.arange(5)}, {"lengths": -np.arange(6)},
        {"shards": np.arange(6)[::-1]}, {"shards": -np.ones(6, int)}, {"labelled": np.full(6, 1.5)},
        {"source_episodes": np.array([None] * 6)},
    ],
)  # fmt: skip
def test_impossible_values_in_the_index_are_refused(shards, arrays):
    write_index(shards, **arrays)
    with pytest.raises(ValueError, match=r"index.npz (is damaged|does not hold one integer|contradicts itself)"):
        ShardDataset(shards, window_size=8, split="all")


def test_an_index_that_promises_a_hundred_billion_entries_is_refused(shards):
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**11,)})
    with zipfile.ZipFile(shards / "index.npz", "w") as archive:
        for name in ("shards", "lengths", "source_episodes", "labelled"):
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64))
    with pytest.raises(ValueError, match=r"index.npz is damaged"):
        ShardDataset(shards, window_size=8, split="all")


def test_exchanged_shards_are_recognized(tmp_path):
    """Shards of equal length, which differ in the episodes that they hold."""
    with_equal_lengths(tmp_path)
    first, second = tmp_path / "shard_0000.h5", tmp_path / "shard_0001.h5"
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    with pytest.raises(ValueError, match=r"shard_0000.h5 holds other episodes than the index of"):
        ShardDataset(tmp_path, window_size=5, split="all").episode(0)


def with_equal_lengths(folder, conversion=None):
    conversion_id = None if conversion is None else json_checksum(conversion)
    for shard in range(2):
        with write_shard(folder / f"shard_{shard:04d}.h5", action_dim=1, conversion_id=conversion_id) as writer:
            writer.begin_episode(shard)
            for _ in range(5):
                writer.add_frame(np.zeros((8, 8, 3), np.uint8))
            writer.end_episode(np.zeros((5, 1), np.float32))
    ShardIndex.join([read_shard_index(folder / f"shard_{shard:04d}.h5", shard) for shard in range(2)]).write(folder)
    ShardMetadata(2, 2, (8, 8, 3), (1,), conversion=conversion).write(folder)


def test_a_shard_of_another_conversion_is_recognized(tmp_path):
    for name, target in (("a", 5.0), ("b", 10.0)):
        (tmp_path / name).mkdir()
        with_equal_lengths(tmp_path / name, {"target_fps": target})
        ShardDataset(tmp_path / name, window_size=5, split="all").episode(1)
    shutil.copy(tmp_path / "a" / "shard_0001.h5", tmp_path / "b" / "shard_0001.h5")
    with pytest.raises(ValueError, match=r"shard_0001.h5 comes from another conversion than"):
        ShardDataset(tmp_path / "b", window_size=5, split="all").episode(1)


def test_a_lerobot_dataset_is_not_taken_for_shards(tiny_lerobot):
    with pytest.raises(FileNotFoundError, match="is a LeRobot dataset, not a folder of shards: convert it first"):
        ShardDataset(tiny_lerobot, window_size=5)


def test_shards_written_before_the_checksum_are_still_read(tmp_path):
    """HDF5's own Zstd and Fletcher-32, as earlier versions stored frames, without an attribute that says more."""
    frames = np.random.default_rng(0).integers(0, 256, (1, 20, 8, 8, 3), np.uint8)
    with h5py.File(tmp_path / "shard_0000.h5", "w", libver=("v110", "v110")) as file:
        filters = {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}
        file.create_dataset("images", data=frames, chunks=(1, 8, 8, 8, 3), **filters)
        file.create_dataset("actions", data=np.zeros((1, 20, 1), np.float32), **filters)
        file.create_dataset("episode_lengths", data=np.array([20], np.int32))
    (tmp_path / "metadata.json").write_text(json.dumps({"num_shards": 1, "total_episodes": 1, "format_version": 1}))
    dataset = ShardDataset(tmp_path, window_size=5, split="all")
    assert dataset.relative_actions is None
    np.testing.assert_array_equal(dataset.window(0, 5, 11)["pixel_values_videos"].permute(0, 2, 3, 1), frames[0, 5:16])
