"""Files of dataset repositories on the Hugging Face Hub, or in its cache on this machine."""

from collections.abc import Sequence
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from .files import first_line

HUB_ERRORS = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, httpx.HTTPError)


def download_dataset(
    repo_id: str, patterns: list[str], revisions: Sequence[str | None] = (None,), cache_dir: Path | None = None
) -> Path:
    """Download those files of a dataset repository that match the patterns, or find them in the cache.

    Args:
        repo_id: the repository.
        patterns: names of files, `*` standing for anything.
        revisions: branches, tags or commits, of which the first that exists is taken; None is the main branch.
        cache_dir: the cache to use; default: that of huggingface_hub.

    Returns:
        The folder of the files, which is named by the commit.

    Raises:
        FileNotFoundError: the repository does not exist, or the Hub cannot be reached and the cache lacks the files.
    """
    failure, offline = None, False
    for revision in revisions:
        where = {"repo_type": "dataset", "revision": revision, "cache_dir": cache_dir, "local_files_only": offline}
        try:
            return Path(snapshot_download(repo_id, allow_patterns=patterns, **where))
        except RepositoryNotFoundError as error:
            failure = error
            break
        except HUB_ERRORS as error:
            # What the first attempt did not reach, later ones need not wait for.
            offline = offline or not isinstance(error, HfHubHTTPError)
            failure = failure or error
    raise FileNotFoundError(
        f"{repo_id} is neither a folder here nor a dataset on the Hub ({first_line(failure)}): check the name, the "
        "connection, and `hf auth login` if it is private."
    ) from failure


def looks_like_a_path(name: str) -> bool:
    """Return whether a name can only be meant as a path, as the Hub has none like it."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name
