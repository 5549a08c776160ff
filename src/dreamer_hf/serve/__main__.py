"""Serve a world to browsers and policies. See docs/serve.md."""

import argparse

from ..cli import run_script
from ..options import add_arguments
from .serve_options import ServeOptions


def main() -> None:
    """Read the flags, and serve."""
    parser = argparse.ArgumentParser(prog="python -m dreamer_hf.serve", description=__doc__)
    add_arguments(parser, ServeOptions)
    options = ServeOptions(**vars(parser.parse_args()))
    try:
        from .server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "prometheus_client"):
            raise
        raise ValueError("serving needs starlette and uvicorn: pip install 'dreamer_hf[serve]'.") from error
    serve(options)


if __name__ == "__main__":
    run_script(main)
