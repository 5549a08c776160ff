"""Serving a world: `serve(ServeOptions(model=...))`. Nothing that takes time is imported before it is needed."""

from ..threads import wait_without_spinning
from .serve_options import ServeOptions


def serve(options: ServeOptions) -> None:
    """Serve a world to players in browsers and to policies, until the process is interrupted.

    Raises:
        ValueError, OSError: the options ask for something that cannot be done; one sentence says what and why.
    """
    options.check()
    wait_without_spinning()
    from .server import run_server

    run_server(options)


__all__ = ["ServeOptions", "serve"]
