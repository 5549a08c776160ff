"""The options of `dreamer export web`. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import option

DTYPES = ("float32", "float16", "int8")


@dataclass(kw_only=True)
class WebOptions:
    """Which world to export, and where to."""

    output_dir: str = option(help="New folder for the page.")
    model: str = option(
        "pusht-tiny",
        help="World to export: the name of one that ships with the package, a folder, or a Hub repository.",
    )
    title: str | None = option(None, help="Title of the page. Defaults to the name of the world.")
    dtype: str = option(
        "float16", choices=DTYPES, help="How the weights are stored; the browser computes in float32 with all of them."
    )
    adapter: str | None = option(None, help="Folder or Hub repository of an adapter for the world.")
    start: str | None = option(
        None,
        help="Where dreams begin: a shard folder, a LeRobot dataset, a video or an image. "
        "Defaults to the start frames saved with the adapter or the world.",
    )
    image_key: str | None = option(None, help="Camera to use if --start is a LeRobot dataset with several.")
    action_key: str = option("action", help="Feature that holds the actions if --start is a LeRobot dataset.")
    push_to_space: str | None = option(
        None, metavar="REPO_ID", help="Space on the Hub to upload the page to, such as me/my-world."
    )
    private: bool = option(False, help="Make the Space private, if it does not exist yet.")
