import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pytest

from dreamer_hf.data.chunk_encoding import FILTERS, WORDS_PER_SUM, encode_chunk, has_checksums, read_rows
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import open_shard


def stored_by_hdf5(chunk, **filters):
    """The bytes of a chunk as HDF5's own filters make them."""
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", data=chunk, chunks=chunk.shape, **filters)
        mask, content = dataset.id.read_direct_chunk((0,) * chunk.ndim)
    assert mask == 0
    return content


def read_by_hdf5(content, shape):
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", shape, np.uint8, chunks=shape, **FILTERS)
        dataset.id.write_direct_chunk((0,) * len(shape), content)
        return dataset[:]


def chunks():
    """Noise, so that chunks are long, of even and odd lengths, and summed up in several parts; and other content."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 67, 41, 3), np.uint8)
    assert noise.nbytes > 2 * WORDS_PER_SUM
    found = {f"{frames} frames of noise": noise[:frames] for frames in (1, 2, 3, 4, 5, 40)}
    found |= {f"only {value}": np.full((8, 16, 16, 3), value, np.uint8) for value in (0, 1, 255)}
    return found | {"smooth": np.ascontiguousarray(np.sort(noise[:8].reshape(8, -1)).reshape(8, 67, 41, 3))}


@pytest.mark.parametrize("kind", chunks())
def test_chunks_are_those_of_hdf5_with_a_checksum_in_a_frame_that_zstd_skips(kind):
    chunk = chunks()[kind]
    encoded, zstd = encode_chunk(pa.Codec("zstd", compression_level=1), chunk), hdf5plugin.Zstd(clevel=1)
    theirs = stored_by_hdf5(chunk, **zstd)
    assert encoded[: len(theirs)] == theirs and len(encoded) == len(theirs) + 8 + 8 + 4
    sum_of_theirs = stored_by_hdf5(np.frombuffer(encoded[:-4], np.uint8), fletcher32=True)
    assert encoded == sum_of_theirs, "HDF5 must compute the same Fletcher-32"
    np.testing.assert_array_equal(read_by_hdf5(encoded, chunk.shape), chunk)


def changes_of(content):
    """Every exchange of a word of zeros for one of ones (the same to Fletcher-32), and flips of single bits."""
    words = np.frombuffer(content[: len(content) // 2 * 2], "<u2")
    for position in np.flatnonzero((words == 0) | (words == 0xFFFF)):
        changed = words.copy()
        changed[position] ^= 0xFFFF
        yield changed.tobytes() + content[len(changed) * 2 :]
    for position in np.random.default_rng(0).integers(0, 8 * len(content), 60):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_any_change_of_a_stored_frame_is_noticed(tmp_path, compression):
    """In the frames and in the actions, with chunks whose encoded form holds words 0000 and ffff."""
    path, rng = tmp_path / "shard_0000.h5", np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)  # incompressible
    frames.reshape(-1, 2)[::60], frames.reshape(-1, 2)[30::60] = 0, 255
    with write_shard(path, action_dim=64, compression=compression) as writer:
        writer.begin_episode(0)
        for frame in frames:
            writer.add_frame(frame)
        writer.end_episode(rng.choice(np.float32([0, 1, np.nextafter(2, 0)]), (8, 64)))
    words_exchanged = 0
    for key in ("images", "actions"):
        with open_shard(path) as file:
            info, expected = file[key].id.get_chunk_info(0), file[key][:]
        original = path.read_bytes()
        content = original[info.byte_offset : info.byte_offset + info.size]
        for number, changed in enumerate(changes_of(content)):
            path.write_bytes(original[: info.byte_offset] + changed + original[info.byte_offset + info.size :])
            words_exchanged += sum(a != b for a, b in zip(changed, content)) == 2
            with open_shard(path) as file:
                array, rows = file[key], expected.shape[1]
                try:
                    found = read_rows(array, 0, 0, rows) if has_checksums(array) else array[0]
                except (OSError, ValueError):
                    continue
            np.testing.assert_array_equal(found, expected[0], err_msg=f"{key}, change {number}")
        path.write_bytes(original)
    assert words_exchanged > 0


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
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
def test_dropped_episodes_leave_nothing(tmp_path, chunk_length, monkeypatch):
    monkeypatch.setattr("dreamer_hf.data.frame_array.CHUNK_LENGTH", chunk_length)
    path = tmp_path / "shard_0000.h5"
    with write_shard(path, action_dim=0) as writer:
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
