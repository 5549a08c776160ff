"""`dreamer export web`: a world as a static page, and on request as a Space."""

import tempfile
from dataclasses import fields
from pathlib import Path

from ..data.files import new_output_folder
from ..loading import load_world_and_starts
from ..onnx.export_world import check_export, export_onnx
from ..options import WorldOptions, WorldSource
from ..play.controls import KEY_PAIRS
from .space import check_space_name, open_space, push_to_space, write_card
from .static_site import write_site
from .web_options import WebOptions


def export_web(options: WebOptions) -> str:
    """Write a folder that any server of static files can serve, and return a sentence on it.

    Raises:
        ValueError: the world cannot be loaded or exported, or has no start frames.
        FileExistsError: the output folder is not empty.
        OSError: the Hub refuses the Space, or the disk is full.
    """
    check_export(options.dtype)
    if options.push_to_space is not None:
        check_space_name(options.push_to_space)
    output_dir = Path(options.output_dir)
    source = {each.name: getattr(options, each.name) for each in fields(WorldSource)}
    with new_output_folder(output_dir) as folder:
        world, starts = load_world_and_starts(WorldOptions(**source, device="cpu"))
        name = options.title or Path(options.model).name
        if options.push_to_space is not None:
            open_space(options.push_to_space, options.private)
        with tempfile.TemporaryDirectory() as temporary:
            export_dir = Path(temporary) / "world"
            export_onnx(world, export_dir, options.dtype, starts, name=name)
            keys = [list(pair) for pair in KEY_PAIRS[: world.config.dynamics_config.action_dim]]
            write_site(export_dir, folder, keys)
        write_card(folder, name, options.model)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if options.push_to_space is not None:
        return f"uploaded to {push_to_space(output_dir, options.push_to_space)}"
    return (
        f"wrote {output_dir} ({size / 1e6:.0f} MB): try it with `python -m http.server --directory {output_dir}`, and "
        "copy it to any server of static files."
    )
