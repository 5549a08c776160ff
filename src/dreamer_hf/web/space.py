"""A static Space on the Hub: the card that configures it, and the upload."""

import json
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ..data.files import first_line
from ..data.hub import HUB_ERRORS, looks_like_a_path

CARD = """---
title: {title}
emoji: 🕹️
colorFrom: gray
colorTo: blue
sdk: static
app_file: index.html
pinned: false
{models}custom_headers:
  cross-origin-embedder-policy: require-corp
  cross-origin-opener-policy: same-origin
  cross-origin-resource-policy: cross-origin
---

# {name}

A world model that plays in your browser: it was trained on recorded episodes, and dreams what your actions lead to.
Made with `dreamer export web` of dreamer_hf.
"""


def write_card(folder: Path, name: str, model: str) -> None:
    """Write the README.md of a Space. Its headers isolate the page, which then may use several threads.

    Args:
        folder: of the page.
        name: title of the page.
        model: the exported world; a repository on the Hub is linked.
    """
    is_repository = "/" in model and not looks_like_a_path(model) and not Path(model).exists()
    models = f"models: [{json.dumps(model)}]\n" if is_repository else ""
    text = CARD.format(title=json.dumps(name, ensure_ascii=False), models=models, name=name)
    (folder / "README.md").write_text(text, encoding="utf-8")


def check_space_name(repo_id: str) -> None:
    """Raise a ValueError if a Space cannot have this name."""
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(
            f"--push_to_space takes the name of a Space, such as me/my-world, not {repo_id!r}."
        ) from error


def open_space(repo_id: str, private: bool) -> None:
    """Create the Space if it does not exist, so that an export without write access fails before it starts.

    Raises:
        OSError: the Hub refuses or cannot be reached.
    """
    try:
        HfApi().create_repo(repo_id, repo_type="space", space_sdk="static", private=private or None, exist_ok=True)
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be opened for --push_to_space ({first_line(error)}): check the name and `hf auth "
            "login`, or leave --push_to_space out."
        ) from error


def push_to_space(folder: Path, repo_id: str) -> str:
    """Make the content of a Space that of a folder, in one commit, and return the address of the Space.

    Raises:
        OSError: the Hub refuses or cannot be reached; the folder does not change.
    """
    api = HfApi()
    try:
        api.upload_folder(
            repo_id=repo_id,
            repo_type="space",
            folder_path=folder,
            delete_patterns="*",
            commit_message="Upload a world with dreamer_hf",
        )
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be written ({first_line(error)}): the page is in {folder}; upload it with "
            f"`hf upload {repo_id} {folder} --repo-type space`."
        ) from error
    return f"{api.endpoint}/spaces/{repo_id}"
