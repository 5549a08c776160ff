"""Serves a world to browsers and policies. See docs/serve.md."""

import argparse

from ..cli import run_script
from ..options import WorldOptions, add_arguments
from ..play.play_options import CONTROLS
from .options import ServeOptions


def parse_args() -> ServeOptions:
    parser = argparse.ArgumentParser(prog="python -m dreamer_hf.serve", description=__doc__)
    default = ServeOptions(model="")
    add_arguments(parser, WorldOptions)
    parser.add_argument("--control", choices=CONTROLS, default=default.control, help="as in examples/play.py")
    reach = parser.add_argument_group("reach")
    reach.add_argument("--host", default=default.host, help="address to listen on; default: this machine alone")
    reach.add_argument("--port", type=int, default=default.port, help="default %(default)s; 0: any free one")
    reach.add_argument("--token", help="secret that clients have to show")
    limits = parser.add_argument_group("limits")
    for name, kind, words in (
        ("max_sessions", int, "players and policies at the same time"),
        ("max_message_bytes", int, "of a message or a request's body"),
        ("max_messages_per_second", float, "of a player"),
        ("idle_seconds", float, "after which silent policies and paused players lose their places"),
        ("max_recording_seconds", float, "of a recording"),
        ("jpeg_quality", int, "of the pictures, 1 to 100"),
    ):
        limits.add_argument(
            f"--{name}", type=kind, default=getattr(default, name), help=f"{words}; default %(default)s"
        )
    return ServeOptions(**vars(parser.parse_args()))


def main() -> None:
    options = parse_args()
    try:
        from .running import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "prometheus_client"):
            raise
        raise ValueError("serving needs starlette and uvicorn: pip install 'dreamer_hf[serve]'.") from error
    serve(options)


if __name__ == "__main__":
    run_script(main)
