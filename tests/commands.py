"""Runs scripts and installed commands, each in a separate process that has imported its libraries already.

PyTorch and transformers take six seconds of processor time to import, and LeRobot half a minute. So one process
imports them, and forks for every command: the child runs the script as the shell would, and leaves its output and exit
status. What a test says about importing, or about variables that a library reads when it is imported, needs a new
process.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
USUAL = ("torch", "torchvision", "transformers", "accelerate", "h5py", "av", "cv2")
USUAL += ("transformers.modeling_utils", "dreamer_hf.modeling_dreamer_world")


class CommandServer:
    """Runs commands, one after another.

    Args:
        preloaded: the modules that every command finds imported.
        environment: variables that differ from those of this process.
    """

    def __init__(self, preloaded: Sequence[str], environment: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, __file__, *preloaded],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def run(
        self,
        script: str | Path,
        *argv,
        cwd: Path | None = None,
        path: Sequence[Path] = (),
        environment: dict[str, str | None] | None = None,
        timeout: float = 600,
    ) -> subprocess.CompletedProcess:
        """Run a command to its end.

        Args:
            script: a file, or the name of an installed command.
            argv: its options.
            cwd: where it runs, by default here.
            path: folders that are searched for packages first.
            environment: variables to change; None removes one.
            timeout: seconds after which it is ended.
        """
        script = script if Path(script).suffix else Path(sys.executable).with_name(str(script))
        logs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        request = {"argv": [str(script), *map(str, argv)], "cwd": str(cwd or Path.cwd()), "logs": list(map(str, logs))}
        request |= {"path": list(map(str, path)), "environment": environment or {}, "timeout": timeout}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        output, errors = (log.read_text(errors="replace") for log in logs)
        return subprocess.CompletedProcess(request["argv"], status, output, errors)

    def close(self) -> None:
        """End the process."""
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._folder.cleanup()


@functools.cache
def usual_server() -> CommandServer:
    """Return the server of `run_command`, which starts with the first command."""
    server = CommandServer(USUAL, ENVIRONMENT)
    atexit.register(server.close)
    return server


def run_command(script: str | Path, *argv, **options) -> subprocess.CompletedProcess:
    """Run a script, or an installed command, to its end; `options` are those of `CommandServer.run`."""
    return usual_server().run(script, *argv, **options)


def serve() -> None:
    """Run the commands that come as lines of JSON, and answer each with its exit status."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        print(_wait(_fork(json.loads(line))), flush=True)


def _fork(request: dict) -> tuple[int, float]:
    child = os.fork()
    if child == 0:
        _become(request)
    return child, time.monotonic() + request["timeout"]


def _wait(started: tuple[int, float]) -> int:
    child, end = started
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(request: dict) -> None:
    """Turn this process into the command; does not return."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [os.open(os.devnull, os.O_RDONLY), *(os.open(log, flags) for log in request["logs"])]
    for target, source in enumerate(files):
        os.dup2(source, target)
    for name, value in request["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    # As where the shell starts a script: its folder is searched instead of this file's.
    sys.path[0:1] = [*request["path"], str(Path(sys.argv[0]).parent)]
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
