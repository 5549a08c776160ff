"""A folder that any web server of static files can serve: the page, ONNX Runtime and an exported world.

`site.json` lists the large files with sizes and digests, so that the page can show its progress, check what it gets
and keep it in the browser's cache. They are packed with gzip, and named so that no server unpacks or packs them again.
"""

import gzip
import hashlib
import html
import json
import shutil
from pathlib import Path

from .. import __version__
from ..onnx.manifest import MANIFEST_NAME, Manifest
from . import STATIC
from .browser_runtime import runtime_builds, runtime_licenses, runtime_version

FORMAT, FORMAT_VERSION = "dreamer-site", 1
SITE_NAME = "site.json"
WORLD_FOLDER, RUNTIME_FOLDER = "world", "onnxruntime"
PACKED_SUFFIX = ".gzipped"
GRAPHS = ("dynamics", "decoder")
SERVER_FILES = ("index.html", "server_connection.js")
HEAD_MARK = "<!-- site -->"


def write_site(export_dir: Path, output_dir: Path, keys: list[list[str]]) -> None:
    """Fill an empty folder with a page that plays an exported world.

    Args:
        export_dir: folder written by `dreamer export onnx`; the page needs its manifest, the start latents, and the
            graphs of the dynamics model and the decoder.
        output_dir: existing folder.
        keys: for each action component the keys of its low and its high end.

    Raises:
        ValueError: the export has no start frames, or weights in separate files, which a browser cannot load.
    """
    manifest = Manifest.read(export_dir / MANIFEST_NAME)
    _check_fits_a_browser(manifest)
    shutil.copytree(STATIC, output_dir / "static", ignore=shutil.ignore_patterns(*SERVER_FILES))
    files = _Files(output_dir)
    names = {"manifest": MANIFEST_NAME, "starts": manifest.starts["file"]}
    names |= {name: manifest.graphs[name].file for name in GRAPHS}
    world = {
        part: files.add(f"{WORLD_FOLDER}/{name}", (export_dir / name).read_bytes()) for part, name in names.items()
    }
    runtime = {kind: _add_build(files, build) for kind, build in runtime_builds().items()}
    for name, content in runtime_licenses().items():
        (output_dir / RUNTIME_FOLDER / name).write_bytes(content)
    site = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dreamer_hf_version": __version__,
        "onnxruntime_version": runtime_version(),
        "keys": keys,
        "world": world,
        "runtime": runtime,
        "files": files.entries,
    }
    (output_dir / SITE_NAME).write_text(json.dumps(site, indent=2) + "\n")
    (output_dir / "index.html").write_text(_page(manifest.name))


def _check_fits_a_browser(manifest: Manifest) -> None:
    if manifest.starts is None:
        raise ValueError("a page needs frames to start from: give some with --start.")
    if any(manifest.graphs[name].data_files for name in GRAPHS):
        raise ValueError("this world has more than 2 GB of weights, too many for a browser: use `dreamer serve`.")


def _page(title: str) -> str:
    """Return the page of the server with a mark that makes it play in the browser."""
    title = html.escape(title)
    head = f'<meta name="dreamer-site" content="{SITE_NAME}">\n  <meta name="description" content="Play {title}">'
    page = (STATIC / "index.html").read_text().replace(HEAD_MARK, head)
    return page.replace("<title>Dreamer</title>", f"<title>{title}</title>")


def _add_build(files: "_Files", build) -> dict[str, str]:
    module = Path(RUNTIME_FOLDER) / build.module.name
    (files.folder / module).parent.mkdir(exist_ok=True)
    (files.folder / module).write_bytes(build.module.content())
    return {
        "module": module.as_posix(),
        "binary": files.add(f"{RUNTIME_FOLDER}/{build.binary.name}", build.binary.content()),
    }


class _Files:
    """The files that `site.json` lists.

    Attributes:
        folder: of the site.
        entries: size and digest by name.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries: dict[str, dict] = {}

    def add(self, name: str, content: bytes) -> str:
        """Write a file, packed, and return its name."""
        packed, name = gzip.compress(content, mtime=0), name + PACKED_SUFFIX
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(packed)
        self.entries[name] = {"size": len(packed), "sha256": hashlib.sha256(packed).hexdigest(), "gzip": True}
        return name
