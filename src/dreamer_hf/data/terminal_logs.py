"""What the log of a command shows: what the command does, and not every request of a client."""

import logging

REQUESTS = ("aiobotocore", "botocore", "httpx")
"""Loggers of packages that write a line for each request, or for each file with credentials."""


def log_to_terminal(level: int, force: bool = False) -> None:
    """Write messages of a level and above to the terminal.

    Args:
        level: of this package; requests are logged as warnings only.
        force: replace the handlers that other packages brought.
    """
    logging.basicConfig(level=level, format="%(message)s", force=force)
    for name in REQUESTS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


__all__ = ["log_to_terminal"]
