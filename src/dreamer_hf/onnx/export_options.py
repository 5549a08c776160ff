"""The options of `dreamer export onnx`, and the command."""

from dataclasses import dataclass

from ..options import option

DTYPES = ("float32", "float16", "int8")
"""How the weights of an export can be stored."""


@dataclass(kw_only=True)
class OnnxExportOptions:
    """Options of `dreamer export onnx`."""

    model: str = option("pusht-tiny", help="World to export: name of a shipped world, folder, or Hub repository.")
    output_dir: str = option(help="Folder to write; it must be new or empty.")
    dtype: str = option(
        "float32",
        choices=DTYPES,
        help="How weights are stored: float16 halves the files; int8 computes matrix products with integers.",
    )
    adapter: str | None = option(None, help="Folder or Hub repository of an adapter to load onto the world.")
    max_error: float | None = option(
        None,
        help="Largest error against PyTorch of a pixel in [0, 1], and of a state as a share of its range, above which "
        "the export is refused.",
    )


def export(options: OnnxExportOptions) -> str:
    """Export a world and return what was written, in one line.

    Raises:
        ValueError, OSError: The world cannot be loaded or exported.
    """
    # Imported here, so that the options can be read without loading PyTorch.
    from ..loading import load_world
    from .export_world import check_export, export_onnx, load_starts

    check_export(options.dtype, options.max_error)
    world = load_world(options.model, "cpu", options.adapter)
    starts = load_starts(options.adapter, world) if options.adapter else None
    manifest = export_onnx(world, options.output_dir, options.dtype, starts, options.max_error)
    check = manifest.check
    return (
        f"wrote {manifest.name} ({options.dtype}) to {options.output_dir}; over {check['frames']} frames pixels "
        f"differ from PyTorch's by at most {check['max_pixel_error']:.1e}"
    )


__all__ = ["DTYPES", "OnnxExportOptions", "export"]
