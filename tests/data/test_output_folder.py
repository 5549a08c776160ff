"""Shards at addresses of fsspec: the same files as in a folder."""

import logging

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from computed_source import ComputedSource
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.output_folder import LocalFolder, RemoteFolder, output_folder
from ftp_server import serving_ftp

OPTIONS = ConversionOptions(episodes_per_shard=2)


@pytest.fixture
def memory():
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(memory, folder) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: memory.cat_file(path) for path in memory.ls(folder, detail=False)}


def test_an_address_gets_the_files_of_a_folder(memory, tmp_path, caplog):
    convert(ComputedSource(6), tmp_path / "out", OPTIONS)
    with caplog.at_level(logging.WARNING):
        assert convert(ComputedSource(6), "memory://bucket/out", OPTIONS) == "memory://bucket/out"
    assert stored(memory, "/bucket/out") == content(tmp_path / "out")
    assert "memory://bucket/out has no locks" in caplog.text


def test_a_conversion_to_an_address_continues(memory, tmp_path):
    convert(ComputedSource(6), tmp_path / "out", OPTIONS)

    class Interrupted(ComputedSource):
        def read(self, numbers, frame_step):
            if 2 in numbers:
                raise OSError("the disk is gone")
            return super().read(numbers, frame_step)

    with pytest.raises(OSError, match="the disk is gone"):
        convert(Interrupted(6), "memory://bucket/out", OPTIONS)
    assert sorted(stored(memory, "/bucket/out")) == ["conversion.json", "shard_0000.h5"]
    with pytest.raises(FileExistsError, match="memory://bucket/out holds an unfinished conversion: continue it with"):
        convert(ComputedSource(6), "memory://bucket/out", OPTIONS)
    with pytest.raises(ValueError, match="was started with other values of episodes, source"):
        convert(ComputedSource(7), "memory://bucket/out", OPTIONS, JobOptions(resume=True))
    convert(ComputedSource(6), "memory://bucket/out", OPTIONS, JobOptions(resume=True))
    assert stored(memory, "/bucket/out") == content(tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds a finished conversion"):
        convert(ComputedSource(6), "memory://bucket/out", OPTIONS, JobOptions(resume=True))


@pytest.mark.slow
def test_a_server_that_shows_unfinished_uploads(tmp_path):
    """FTP shows a file while it is uploaded: it gets its name when it is complete. Two processes upload."""
    convert(ComputedSource(6), tmp_path / "out", OPTIONS)
    with serving_ftp(tmp_path / "served") as server:
        convert(ComputedSource(6), f"{server.address}/data/out", OPTIONS, JobOptions(num_workers=2))
        assert content(tmp_path / "served" / "data" / "out") == content(tmp_path / "out")
        assert all(name.endswith(".tmp") for name in server.uploaded if "/data/out/" in name)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nothing://bucket/data", "nothing://bucket/data cannot be opened by fsspec .*: give a folder, or"),
        ("sftp://host/data", "sftp://host/data needs another package .*paramiko"),
        ("ftp://me:secret@127.0.0.1:1/data", "^ftp://127.0.0.1:1/data cannot be reached .*refused.*check the address"),
    ],
)
def test_addresses_that_cannot_be_written(address, sentence):
    with pytest.raises((ValueError, OSError), match=sentence):
        convert(ComputedSource(2), address, OPTIONS)


def test_what_is_an_address(tmp_path):
    assert output_folder(f"file://{tmp_path}") == LocalFolder(tmp_path) == output_folder(tmp_path)
    assert output_folder("memory://a/b/") == RemoteFolder("memory://a/b")
    assert not output_folder("C://data").is_remote
