from collections import Counter

import numpy as np
import pytest
import torch

from dreamer_hf.data import (
    AlternatingBatchSampler,
    MixtureBatchSampler,
    MixtureDataset,
    ShardDataset,
    WindowBatchSampler,
    collate_windows,
)


def flat(batches):
    return [index for batch in batches for index in batch]


def test_every_window_once_an_epoch_across_processes_and_batch_sizes():
    def stream(rank, world_size, start=0, steps=30, batch=4):
        return list(WindowBatchSampler(50, batch, 3, rank, world_size, start, steps))

    ranks = [stream(rank, 2) for rank in range(2)]
    interleaved = flat(batch for step in zip(*ranks) for batch in step)
    for epoch in range(4):
        assert sorted(interleaved[epoch * 50 : epoch * 50 + 50]) == list(range(50))
    assert interleaved[:50] != interleaved[50:100]
    assert stream(1, 2, start=17, steps=13) == ranks[1][17:]
    assert flat(stream(0, 1, batch=8)) == interleaved
    assert WindowBatchSampler(50, 4, world_size=2).epoch(25) == 4.0


@pytest.mark.parametrize("world_size", [1, 3])
def test_mixtures_keep_their_weights_and_see_each_dataset_through(world_size):
    sizes, weights = [7, 40, 100], [1, 1, 2]
    samplers = [
        MixtureBatchSampler(sizes, weights, 5, 1, rank=r, world_size=world_size, num_steps=400)
        for r in range(world_size)
    ]
    ranks = [list(sampler) for sampler in samplers]
    drawn = flat(batch for step in zip(*ranks) for batch in step)
    components = np.searchsorted([7, 47], drawn, side="right")
    assert np.allclose(np.bincount(components[:2000]) / 2000, [0.25, 0.25, 0.5])
    for component, size, offset in ((0, 7, 0), (1, 40, 7), (2, 100, 47)):
        own = [index - offset for index, c in zip(drawn, components) if c == component]
        assert sorted(own[size : 2 * size]) == list(range(size))  # its second epoch
    again = MixtureBatchSampler(sizes, weights, 5, 1, rank=0, world_size=world_size, start_step=123, num_steps=50)
    assert list(again) == ranks[0][123:173]


def test_alternating_batches_have_one_length_at_a_time(tiny_shards):
    short = ShardDataset(tiny_shards, window_size=4, split="all")
    long = short.with_window(16)
    mixture = MixtureDataset([short, long])
    ranks = [
        AlternatingBatchSampler(mixture.sizes, [3, 1], [8, 2], rank=rank, world_size=2, num_steps=1000)
        for rank in range(2)
    ]
    lengths = Counter()
    for first, second in zip(*map(list, ranks)):
        assert (first.step, first.kind, len(first.indices)) == (second.step, second.kind, len(second.indices))
        assert second.first_row == first.first_row + len(first.indices)
        lengths[len(first.indices)] += 1
    assert lengths == {8: 750, 2: 250}
    shapes = {
        collate_windows([mixture.datasets[drawn.kind][i] for i in drawn.indices])["pixel_values_videos"].shape[:2]
        for drawn in map(ranks[0].batch, range(20))
    }
    assert shapes == {(8, 4), (2, 16)}


def test_unlabeled_data_mixes_with_labeled_data(tiny_shards):
    labeled = ShardDataset(tiny_shards, window_size=4, split="all")
    unlabeled = ShardDataset(tiny_shards, window_size=4, split="all")
    unlabeled.metadata.action_shape, unlabeled.metadata.action_stats = (0,), None
    unlabeled.window = lambda *where: {
        **ShardDataset.window(labeled, *where), "actions": torch.zeros(4, 0), "action_mask": torch.zeros(4, dtype=bool)
    }  # fmt: skip
    mixture = MixtureDataset([labeled, unlabeled])
    item = mixture[len(labeled) + 3]
    assert item["actions"].shape == (4, 2) and not item["action_mask"].any()
    assert mixture.action_dim == 2 and mixture.action_names == ["step_x", "step_y"]
    np.testing.assert_allclose(mixture.action_stats["std"], labeled.action_stats["std"])


def test_what_does_not_go_together_is_refused(tiny_shards):
    data = ShardDataset(tiny_shards, window_size=4, split="all")
    other = ShardDataset(tiny_shards, window_size=4, split="all", action_offset=0)
    with pytest.raises(ValueError, match="must have the same action_offset"):
        MixtureDataset([data, other])
    with pytest.raises(ValueError, match="must be positive numbers"):
        MixtureBatchSampler([3, 4], [1, 0], 2)
    with pytest.raises(ValueError, match="differ in length"):
        MixtureBatchSampler([3, 4], [1], 2)
    with pytest.raises(ValueError, match="no windows"):
        WindowBatchSampler(0, 2)
    with pytest.raises(ValueError, match="expected a rank from 0 to 1, got 2"):
        WindowBatchSampler(5, 2, rank=2, world_size=2)


def test_rare_components_are_drawn_all_the_same():
    drawn = flat(MixtureBatchSampler([1000, 10], [1e6, 1], 100, num_steps=20))
    assert sum(index >= 1000 for index in drawn) == 2
