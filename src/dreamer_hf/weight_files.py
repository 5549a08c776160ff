"""Saved weights: refuse what is missing, foreign or damaged, and keep a digest of the files with the model."""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import CONFIG_NAME, cached_file

from .configuration_base import DIGESTS_KEY


@contextmanager
def readable_loading_errors(path: str | os.PathLike, keep_report: bool = False) -> Iterator[None]:
    """Turn what transformers and accelerate log and raise about damaged files into one sentence.

    Args:
        path: folder or Hub repository that is loaded.
        keep_report: whether to log transformers' table of missing weights. Defaults to False.

    Raises:
        OSError: if a file of weights is damaged.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    is_wanted = lambda record: keep_report or "LOAD REPORT" not in record.getMessage()  # noqa: E731
    logger.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            # A device map also names parameters that are in no submodule, such as learned tokens; they are placed,
            # too.
            warnings.filterwarnings("ignore", message="The following device_map keys do not match any submodules")
            yield
    except SafetensorError as error:
        raise OSError(f"{path} holds damaged weights ({error}): copy or download the folder again.") from error
    finally:
        logger.removeFilter(is_wanted)


def check_complete(path: str | os.PathLike, name: str, info: dict, allow_mismatched: bool = False) -> None:
    """Check that a model was loaded completely.

    Args:
        path: where it was loaded from.
        name: name of its class.
        info: what `from_pretrained(..., output_loading_info=True)` returned.
        allow_mismatched: whether weights of another shape may have been replaced by new ones. Defaults to False.

    Raises:
        ValueError: if weights are missing, unexpected or of another shape.
    """
    faults = {"missing": info["missing_keys"], "unexpected": info["unexpected_keys"]}
    if not allow_mismatched:
        faults["of another shape"] = [key for key, *_ in info["mismatched_keys"]]
    listed = "; ".join(f"{fault}: {_some(sorted(keys))}" for fault, keys in faults.items() if keys)
    if listed:
        raise ValueError(
            f"{path} does not hold the weights of a {name} ({listed}): save it again, or download it again."
        )


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def write_digests(folder: Path) -> None:
    """Store the SHA-256 of every weight file of a saved model in its `config.json`.

    Nothing happens in a folder without a model, such as that of an adapter.
    """
    files, config_file = sorted(folder.glob("model*.safetensors")), folder / CONFIG_NAME
    if files and config_file.is_file():
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config[DIGESTS_KEY] = {file.name: _sha256(file) for file in files}
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_config(path_or_repo: str | os.PathLike, **hub_kwargs) -> dict:
    """Read the `config.json` of a saved model, whatever model it is of.

    Args:
        path_or_repo: folder or Hub repository.
        hub_kwargs: arguments of `huggingface_hub`, such as `revision`.

    Raises:
        OSError: if there is no such model.
        ValueError: if the file does not hold a JSON object.
    """
    file = cached_file(path_or_repo, CONFIG_NAME, **hub_kwargs)
    if file is None:
        raise OSError(f"{path_or_repo} has no {CONFIG_NAME}: give the folder of a saved model.")
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(
            f"config.json of {path_or_repo} does not hold a JSON object: save the model again, or download it again."
        )
    return values


def verify_weights(path_or_repo: str | os.PathLike, **hub_kwargs) -> bool:
    """Check that the weight files of a saved model are the ones that were saved.

    `from_pretrained` does not do this by itself, because it reads every byte: about a second per gigabyte.

    Args:
        path_or_repo: folder or Hub repository.
        hub_kwargs: arguments of `huggingface_hub`, such as `revision`.

    Returns:
        Whether there was a digest to check: models saved before version 0.2.0 have none.

    Raises:
        OSError: if there is no such model, or a weight file is missing or differs from the one that was saved.
        ValueError: if `config.json` is damaged.
    """
    digests = read_config(path_or_repo, **hub_kwargs).get(DIGESTS_KEY, {})
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError(
            f"{DIGESTS_KEY} in config.json of {path_or_repo} is damaged: copy or download the folder again."
        )
    for name, expected in digests.items():
        if _sha256(Path(cached_file(path_or_repo, name, **hub_kwargs))) != expected:
            raise OSError(
                f"{name} of {path_or_repo} is not the file that was saved: copy or download the folder again."
            )
    return bool(digests)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


__all__ = ["check_complete", "read_config", "readable_loading_errors", "verify_weights", "write_digests"]
