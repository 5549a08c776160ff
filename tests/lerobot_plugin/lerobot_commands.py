"""Runs the installed command lines of LeRobot, each in a separate process.

LeRobot takes half a minute of processor time to import. So one process imports it, and forks for every command: the
child runs the installed script as the shell would, and leaves its output and its exit status.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

PLUGINS = "dreamer_hf.lerobot"
PRELOADED = [f"lerobot.scripts.lerobot_{name}" for name in ("eval", "record", "replay", "rollout", "teleoperate")]
PRELOADED += ["transformers"]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    output: str


class LeRobotCommands:
    """Runs commands such as `run("lerobot-eval", "--env.type=dreamer", ...)`, one after another.

    Args:
        folder: for their output and their cache.
    """

    def __init__(self, folder: Path):
        self._folder, self._count = folder, 0
        home = {"HF_HOME": str(folder / "home"), "HF_LEROBOT_HOME": str(folder / "home" / "lerobot")}
        command = [sys.executable, __file__]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT | home
        )

    def run(self, name: str, *argv, cwd: Path, path: tuple[Path, ...] = (), timeout: float = 300) -> Result:
        """Run a command to its end.

        Args:
            name: of the installed script.
            argv: its options.
            cwd: where it runs.
            path: folders that are searched for packages first.
            timeout: seconds after which it is ended.
        """
        self._count += 1
        log = self._folder / f"{self._count}-{name}.log"
        request = {"script": name, "argv": list(map(str, argv)), "cwd": str(cwd), "log": str(log)}
        request |= {"path": list(map(str, path)), "timeout": timeout}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return Result(status, log.read_text(errors="replace"))

    def close(self) -> None:
        """End the process."""
        self._server.stdin.close()
        self._server.wait()


def serve() -> None:
    """Run the commands that come as lines of JSON, and answer each with its exit status."""
    for module in PRELOADED:
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
        time.sleep(0.05)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(request: dict) -> None:
    """Turn this process into the command; does not return."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    script = Path(sys.executable).with_name(request["script"])
    os.chdir(request["cwd"])
    sys.argv = [str(script), *request["argv"]]
    # As where the shell starts a script: its folder is searched instead of this file's.
    sys.path[0:1] = [*request["path"], str(script.parent)]
    status = 0
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
