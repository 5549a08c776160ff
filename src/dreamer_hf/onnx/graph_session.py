"""Sessions of ONNX Runtime: one graph each, on a provider, with a number of threads.

Only NumPy and onnxruntime are needed here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .manifest import DamagedExportError, GraphEntry, file_sha256

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime on a Mac"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
}
"""Names of providers: what ONNX Runtime calls each, and the package that brings it."""

INSTALL = "dreaming without PyTorch needs onnxruntime: pip install 'dreamer_hf[onnx]'."


def check_provider(provider: str) -> str:
    """Return ONNX Runtime's name of a provider.

    Raises:
        ValueError: there is no such provider, or onnxruntime or its build for the provider is not installed.
    """
    if provider not in PROVIDERS:
        raise ValueError(f"expected one of {', '.join(PROVIDERS)} as the provider, got {provider!r}.")
    name, package = PROVIDERS[provider]
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(INSTALL) from error
    if name not in onnxruntime.get_available_providers():
        raise ValueError(
            f"the installed onnxruntime has no provider {provider!r}: install {package} in its place, or use cpu."
        )
    return name


class Graph:
    """A graph that is ready to run.

    Args:
        folder: where its files are.
        entry: its entry of the manifest.
        provider: name of a provider, see `PROVIDERS`.
        threads: number of CPU threads; default: as many as there are cores to use.

    Attributes:
        entry: as given.
        inputs: names of the inputs that the graph uses.
        threads: number of CPU threads.

    Raises:
        ValueError: a file is missing, differs from the one that was exported, or cannot be read.
    """

    def __init__(self, folder: Path, entry: GraphEntry, provider: str = "cpu", threads: int | None = None):
        self.entry = entry
        for file, digest in ({entry.file: entry.sha256} | entry.data_files).items():
            _check_digest(folder / file, digest)
        self._path, self._provider = folder / entry.file, check_provider(provider)
        self.set_threads(threads or available_cores())
        self.inputs = frozenset(each.name for each in self._session.get_inputs())

    def set_threads(self, threads: int) -> None:
        """Use another number of CPU threads, which opens the file again."""
        self.threads, self._session = threads, _open_session(self._path, self._provider, threads)

    @property
    def ring_frames(self) -> int:
        """P, the number of past frames that a frame sees."""
        return self.entry.context_length - 1

    def run(self, feeds: dict[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the graph.

        Args:
            feeds: inputs by name; those that the graph does not use are left out.
            outputs: names of the outputs to return.
        """
        return self._session.run(outputs, {name: feeds[name] for name in self.inputs})


def _check_digest(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DamagedExportError(f"{path} is missing: copy or download the folder again.")
    if file_sha256(path) != expected:
        raise DamagedExportError(f"{path} is not the file that was exported: copy or download the folder again.")


def _open_session(path: Path, provider: str, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings are about choices of the optimizer
    # Threads that wait in a loop take the time of other processes, and of the game itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its classes of exceptions have no common base but this one
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"ONNX Runtime cannot open {path} ({reason}): export the world again.") from error


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["PROVIDERS", "Graph", "available_cores", "check_provider"]
