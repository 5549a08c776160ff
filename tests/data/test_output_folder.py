"""Shards at addresses of fsspec: the same files as in a folder."""

import logging

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from computed_source import ComputedSource
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.output_folder import LocalFolder, RemoteFolder, output_folder
from ftp_server import serving_ftp
from s3_server import forget_connections, serving_s3

OPTIONS = ConversionOptions(episodes_per_shard=2)


class MemoryBucket:
    """A folder in the memory of this process."""

    address = "memory://bucket"

    def content(self, folder: str) -> dict[str, bytes]:
        files = MemoryFileSystem()
        return {path.rpartition("/")[2]: files.cat_file(path) for path in files.ls(f"/bucket/{folder}", detail=False)}


@pytest.fixture
def s3(monkeypatch):
    with serving_s3() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket
    forget_connections()


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def bucket(request):
    if request.param == "s3":
        yield request.getfixturevalue("s3")
        return
    yield MemoryBucket()
    MemoryFileSystem.store.clear()


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_address_gets_the_files_of_a_folder(bucket, tmp_path, caplog):
    convert(ComputedSource(6), tmp_path / "out", OPTIONS)
    address = f"{bucket.address}/out"
    with caplog.at_level(logging.WARNING):
        assert convert(ComputedSource(6), address, OPTIONS) == address
    assert bucket.content("out") == content(tmp_path / "out")
    assert f"{address} has no locks" in caplog.text


def test_a_conversion_to_an_address_continues(bucket, tmp_path):
    address = f"{bucket.address}/out"
    convert(ComputedSource(6), tmp_path / "out", OPTIONS)

    class Interrupted(ComputedSource):
        def read(self, numbers, frame_step):
            if 2 in numbers:
                raise OSError("the disk is gone")
            return super().read(numbers, frame_step)

    with pytest.raises(OSError, match="the disk is gone"):
        convert(Interrupted(6), address, OPTIONS)
    assert sorted(bucket.content("out")) == ["conversion.json", "shard_0000.h5"]
    with pytest.raises(FileExistsError, match=f"{address} holds an unfinished conversion: continue it with"):
        convert(ComputedSource(6), address, OPTIONS)
    with pytest.raises(ValueError, match="was started with other values of episodes, source"):
        convert(ComputedSource(7), address, OPTIONS, JobOptions(resume=True))
    convert(ComputedSource(6), address, OPTIONS, JobOptions(resume=True))
    assert bucket.content("out") == content(tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds a finished conversion"):
        convert(ComputedSource(6), address, OPTIONS, JobOptions(resume=True))


@pytest.mark.slow
def test_an_object_store_and_a_folder_made_in_a_browser(s3, tmp_path):
    s3.files.touch("bucket/made/out/")
    size = {"size": 256}  # a shard is larger than what is read at a time to look into it
    convert(ComputedSource(6, **size), tmp_path / "out", OPTIONS)
    convert(ComputedSource(6, **size), "s3://bucket/made/out", OPTIONS)
    assert {name: s3.content("made/out")[name] for name in content(tmp_path / "out")} == content(tmp_path / "out")


@pytest.mark.slow
def test_object_stores_that_cannot_be_written(s3, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^s3://misspelled does not exist, or you may not see it: create it"):
        convert(ComputedSource(2), "s3://misspelled/out", OPTIONS)
    assert s3.files.ls("", detail=False) == ["bucket"], "a misspelled bucket is not created"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, value, sentence in (
        (
            "AWS_ACCESS_KEY_ID",
            None,
            "s3://bucket/out cannot be reached .*credentials.*check the address and your access",
        ),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "s3://bucket/out cannot be reached .*Could not connect"),
    ):
        forget_connections()
        with monkeypatch.context() as changed, pytest.raises(OSError, match=sentence):
            changed.setenv(name, value) if value else changed.delenv(name)
            convert(ComputedSource(2), "s3://bucket/out", OPTIONS)


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
