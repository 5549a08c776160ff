import h5py
import hdf5plugin
import numpy as np
import pytest

from dreamer_hf.data.shard_writer import WORDS_AT_ONCE, ZstdChunks, write_shard


def stored_by_hdf5(chunk):
    """The bytes of a chunk as HDF5's own filters make them."""
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        filters = {**hdf5plugin.Zstd(clevel=1), "fletcher32": True}
        dataset = file.create_dataset("x", data=chunk, chunks=chunk.shape, **filters)
        mask, content = dataset.id.read_direct_chunk((0,) * chunk.ndim)
    assert mask == 0
    return content


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 40])
def test_chunks_are_the_bytes_that_hdf5_makes(frames):
    """Noise, so that chunks are long, of even and odd lengths, and summed up in several parts."""
    chunk = np.random.default_rng(frames).integers(0, 256, (frames, 67, 41, 3), np.uint8)
    assert (chunk.nbytes > 2 * WORDS_AT_ONCE) == (frames == 40)
    assert ZstdChunks(1).encode(chunk) == stored_by_hdf5(chunk)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_chunks_of_one_value_are_the_bytes_that_hdf5_makes(value):
    chunk = np.full((8, 16, 16, 3), value, np.uint8)
    assert ZstdChunks(1).encode(chunk) == stored_by_hdf5(chunk)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip", "none"])
@pytest.mark.parametrize("lengths", [(5, 3), (5, 21, 8, 1), (16, 7)])
def test_every_codec_stores_the_same_frames(tmp_path, compression, lengths):
    """Also where the first episodes are shorter than a chunk, or all are; beyond an episode's end there is black."""
    rng, path = np.random.default_rng(0), tmp_path / "shard_0000.h5"
    episodes = [rng.integers(1, 256, (length, 6, 5, 3), np.uint8) for length in lengths]
    with write_shard(path, action_dim=1, compression=compression) as writer:
        for number, episode in enumerate(episodes):
            writer.begin_episode(number)
            for frame in episode:
                writer.add_frame(frame)
            writer.end_episode(np.zeros((len(episode), 1), np.float32))
    with h5py.File(path) as file:
        images = file["images"][:]
    assert images.shape[:2] == (len(lengths), max(lengths))
    for stored, episode in zip(images, episodes, strict=True):
        np.testing.assert_array_equal(stored[: len(episode)], episode)
        assert not stored[len(episode) :].any()


@pytest.mark.parametrize("chunk_length", [2, 8, 100])
def test_dropped_episodes_leave_nothing(tmp_path, chunk_length):
    path = tmp_path / "shard_0000.h5"
    with write_shard(path, action_dim=0, chunk_length=chunk_length) as writer:
        for number, (length, size) in enumerate([(30, 4), (9, 8), (40, 8), (20, 8)]):
            writer.begin_episode(number)
            for _ in range(length):
                writer.add_frame(np.full((size, size, 3), number + 1, np.uint8))
            if number in (0, 2):
                writer.drop_episode()
            else:
                writer.end_episode(None)
    with h5py.File(path) as file:
        assert file["episode_lengths"][:].tolist() == [9, 20] and file["source_episodes"][:].tolist() == [1, 3]
        assert file["images"].shape == (2, 20, 8, 8, 3)
        assert (
            (file["images"][0, :9] == 2).all() and not file["images"][0, 9:].any() and (file["images"][1] == 4).all()
        )
