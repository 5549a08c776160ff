"""The options of `dreamer export web`. Imports nothing that takes time."""

from dataclasses import dataclass

from ..onnx.export_options import DTYPES
from ..options import WorldSource, option


@dataclass(kw_only=True)
class WebOptions(WorldSource):
    """Which world to export, and where to."""

    output_dir: str = option(help="New folder for the page.")
    title: str | None = option(None, help="Title of the page. Defaults to the name of the world.")
    dtype: str = option(
        "float16",
        choices=DTYPES,
        help="How the weights are stored. int8 also computes most matrix products with integers.",
    )
    push_to_space: str | None = option(
        None, metavar="REPO_ID", help="Space on the Hub to upload the page to, such as me/my-world."
    )
    private: bool = option(False, help="Make the Space private, if it does not exist yet.")
