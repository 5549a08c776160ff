import json
import multiprocessing
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dreamer_hf.data import ShardDataset, collate_windows
from dreamer_hf.data.shard_writer import write_shard
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
