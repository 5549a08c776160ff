"""Uploading a finished run to the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import HfApi

from ..data.files import first_line
from ..data.shard_folder import HUB_ERRORS
from .arguments import TrainerArguments


def open_repository(repo_id: str) -> None:
    """Creates the repository if it does not exist: a run learns before it begins that it may not write there.

    Raises:
        OSError: the Hub refuses or cannot be reached.
    """
    try:
        HfApi().create_repo(repo_id, exist_ok=True)
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be opened for --push_to_hub ({first_line(error)}): check --hub_model_id and "
            "`hf auth login`, or leave --push_to_hub out."
        ) from error


def upload(arguments: TrainerArguments, names: list[str]) -> str:
    """Uploads files of the output folder, and nothing else in it, in one commit; returns its address.

    Args:
        arguments: keys of the run.
        names: the files, by their names.

    Raises:
        OSError: the Hub refuses or cannot be reached; the folder stays as it is.
    """
    try:
        commit = HfApi().upload_folder(
            repo_id=arguments.hub_model_id,
            folder_path=Path(arguments.output_dir),
            allow_patterns=names,
            commit_message="Upload model",
        )
    except HUB_ERRORS as error:
        raise OSError(
            f"{arguments.hub_model_id} cannot be written ({first_line(error)}): the model is in {arguments.output_dir}, "
            "and the same command with --resume_from_checkpoint latest tries again."
        ) from error
    return commit.commit_url
