"""Where shards lie: in a folder, or in a dataset repository on the Hub that is downloaded as it is read."""

import os
import re
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from .files import first_line
from .shard_format import INDEX_NAME, METADATA_NAME, ShardIndex, ShardMetadata, read_shard_index, shard_name

HUB_ERRORS = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, httpx.HTTPError)


class ShardFolder:
    """Finds shards, metadata and index of `location`: a folder, or "org/name" on the Hub.

    Raises:
        FileNotFoundError: it is neither, or the Hub cannot be reached and nothing is in its cache.
    """

    def __init__(self, location: str | Path, revision: str | None = None):
        self.path = Path(location)
        self.repo_id: str | None = None
        if not self.path.is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(location)):
            self.repo_id = str(location)
            self.path = download_dataset(self.repo_id, [METADATA_NAME, INDEX_NAME], revision)
        self.metadata = ShardMetadata.read(self.path)

    def shard(self, number: int) -> Path:
        """Path of a shard on this machine, fetched from the Hub if it is not there yet.

        Raises:
            FileNotFoundError: it cannot be fetched.
        """
        path = self.path / shard_name(number)
        if self.repo_id is None or path.exists():
            return path
        try:
            commit = self.path.name
            return Path(hf_hub_download(self.repo_id, path.name, repo_type="dataset", revision=commit))
        except HUB_ERRORS as error:
            raise FileNotFoundError(
                f"{path.name} of {self.repo_id} cannot be fetched ({first_line(error)})."
            ) from error

    def read_index(self) -> ShardIndex:
        """The index; folders without one are read shard by shard.

        Raises:
            FileNotFoundError, ValueError: shards are missing, or the index contradicts the metadata.
        """
        present = {entry.name for entry in os.scandir(self.path)}
        shards = range(self.metadata.num_shards)
        missing = [shard_name(shard) for shard in shards if shard_name(shard) not in present]
        if missing and self.repo_id is None:
            more = " and more" if len(missing) > 5 else ""
            raise FileNotFoundError(
                f"{self.path} lacks {', '.join(missing[:5])}{more}: restore the files, or convert again."
            )
        if INDEX_NAME in present:
            index = ShardIndex.read(self.path / INDEX_NAME)
        else:
            index = ShardIndex.join([read_shard_index(self.shard(shard), shard) for shard in shards])
        promised = (self.metadata.total_episodes, self.metadata.num_shards)
        if len(index.lengths) != promised[0] or (len(index.shards) and index.shards[-1] >= promised[1]):
            raise ValueError(
                f"{self.path} promises {promised[0]} episodes in {promised[1]} shards in its metadata but holds "
                f"{len(index.lengths)} episodes: restore it, or convert again."
            )
        return index


def download_dataset(repo_id: str, patterns: list[str], revision: str | None = None) -> Path:
    """Fetches those files of a dataset repository that fit the patterns; returns their folder, named by the commit.

    Raises:
        FileNotFoundError: the repository is nowhere to be found.
    """
    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except HUB_ERRORS as error:
        raise FileNotFoundError(
            f"{repo_id} is neither a folder here nor a dataset on the Hub ({first_line(error)}): check the name, the "
            "connection, and `hf auth login` if it is private."
        ) from error
