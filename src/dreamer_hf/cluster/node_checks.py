"""What must be the same on every node, checked before the work begins: versions, extras, and the output folder."""

import platform
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .. import __version__
from ..data.files import temporary_path
from ..data.output_folder import OutputFolder
from ..extras import EXTRAS

ANSWER_SECONDS = 180.0


@dataclass(frozen=True)
class FolderProbe:
    """Files by which a node and this process find out whether they share a folder.

    Attributes:
        folder: the folder, as an absolute path.
        token: part of the names of the files.
    """

    folder: Path
    token: str

    def file(self, node: str = "") -> Path:
        """Return the file that a node writes, or this process (""). It has the name of a temporary file, so that it is
        deleted like one if this process is killed."""
        return temporary_path(self.folder / f"probe-{self.token}-{node[:12]}")


def alive_nodes() -> list[dict]:
    """Return Ray's descriptions of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def nodes_with_cores() -> list[dict]:
    """Return those of `alive_nodes` that take work; a head node often takes none."""
    return [node for node in alive_nodes() if node["Resources"].get("CPU")]


def node_name(node: dict) -> str:
    """Return a name for people: the host, its address, and the beginning of Ray's number."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def check_nodes(nodes: Sequence[dict], needs: Sequence[str], probe: FolderProbe | None = None) -> None:
    """Ask every node, and refuse a cluster on which the work would fail.

    Args:
        nodes: descriptions of the nodes (`alive_nodes`).
        needs: modules that the work imports.
        probe: of the output folder, if it is one that the nodes have to share.

    Raises:
        ValueError: a node lacks the package, a module or the folder, or has another version; one sentence names it.
        OSError: a node does not answer.
    """
    inspect = ray.remote(num_cpus=0, max_retries=0)(_inspector())
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        files = () if probe is None else (str(probe.file()), str(probe.file(node["NodeID"])))
        asked[node["NodeID"]] = inspect.options(scheduling_strategy=here).remote(list(needs), *files)
    for node in nodes:
        try:
            found = ray.get(asked[node["NodeID"]], timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            if node["NodeID"] not in {each["NodeID"] for each in alive_nodes()}:
                continue  # It has died in the meantime, and the other nodes do the work.
            raise OSError(f"node {node_name(node)} does not answer: look at its Ray logs, or remove it.") from error
        _check_answer(node_name(node), found, probe)


def _inspector() -> Callable:
    """Return the function that nodes run. It travels as code, so that it also runs where the package is missing or
    another version."""

    def inspect_node(modules: list[str], theirs: str | None = None, ours: str | None = None) -> dict:
        import importlib.util
        import os
        import platform
        import time

        found = {"python": platform.python_version(), "package": None, "missing": [], "sees_folder": True}
        try:
            import dreamer_hf

            found["package"] = dreamer_hf.__version__
        except ImportError:
            return found
        for module in modules:
            try:
                known = importlib.util.find_spec(module)
            except ImportError:
                known = None
            if known is None:
                found["missing"].append(module)
        if theirs is not None:
            deadline = time.monotonic() + 5  # network file systems may show a new file late
            while not os.path.exists(theirs) and time.monotonic() < deadline:
                time.sleep(0.2)
            try:
                with open(theirs), open(ours, "w"):
                    pass
            except OSError:
                found["sees_folder"] = False
        return found

    return inspect_node


def _check_answer(name: str, found: dict, probe: FolderProbe | None) -> None:
    ours = platform.python_version()
    if found["package"] is None:
        raise ValueError(
            f"node {name} (Python {found['python']}) has no dreamer_hf: install version {__version__} there."
        )
    if (found["package"], _minor(found["python"])) != (__version__, _minor(ours)):
        raise ValueError(
            f"node {name} runs dreamer_hf {found['package']} on Python {found['python']}, this process "
            f"dreamer_hf {__version__} on Python {ours}: install the same versions everywhere."
        )
    if found["missing"]:
        module = found["missing"][0]
        extra = EXTRAS.get(module)
        what = module if extra is None else f"'dreamer_hf[{extra}]'"
        raise ValueError(f"node {name} lacks {module}, which this work needs: pip install {what} there.")
    if not found["sees_folder"]:
        raise ValueError(
            f"node {name} does not share {probe.folder} with this machine, or may not write there: give a folder that "
            "all nodes share as --output_dir, or an address such as s3://bucket/data."
        )


def _minor(version: str) -> str:
    """Return 3.12 for 3.12.1: pickled code and data fit between these."""
    return ".".join(version.split(".")[:2])


@contextmanager
def folder_probe(folder: OutputFolder) -> Iterator[FolderProbe | None]:
    """Yield a probe of an existing folder, whose files are deleted afterwards; None for an address."""
    if folder.is_remote:
        yield None
        return
    probe = FolderProbe(Path(str(folder)).resolve(), uuid.uuid4().hex[:8])
    probe.file().touch()
    try:
        yield probe
    finally:
        for path in probe.folder.glob(f".probe-{probe.token}-*"):
            path.unlink(missing_ok=True)


__all__ = ["FolderProbe", "alive_nodes", "check_nodes", "folder_probe", "node_name", "nodes_with_cores"]
