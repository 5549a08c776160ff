"""A hook of mkdocs: writes the page of the shipped world into the site, for the landing page to show."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from dreamer_hf.web.web_export import export_web
from dreamer_hf.web.web_options import WebOptions

FOLDER = "play-world"


@cache
def exported() -> tempfile.TemporaryDirectory:
    """Export the shipped world, once for all builds of `mkdocs serve`."""
    folder = tempfile.TemporaryDirectory()
    export_web(WebOptions(output_dir=str(Path(folder.name) / FOLDER)))
    return folder


def on_post_build(config) -> None:
    """Copy the page into the site."""
    shutil.copytree(Path(exported().name) / FOLDER, Path(config.site_dir) / FOLDER, dirs_exist_ok=True)
