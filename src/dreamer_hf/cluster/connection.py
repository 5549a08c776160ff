"""Connecting to a Ray cluster, or starting one on this machine."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from ..data.conversion_options import available_cores
from ..data.files import first_line

AUTO, LOCAL = "auto", "local"
PROBE_SECONDS = 5.0
HTTP2_SETTINGS = 4
"""Type of the first frame that both sides of an HTTP/2 connection send, in its fourth byte of nine."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])
VERSIONS = re.compile(r"(Ray|Python): *(\S+)")
START_ONE = "start one with `ray start --head`, or use the cores of this machine with --ray local"


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect this process to a cluster while the block runs.

    A process that is connected already stays connected.

    Args:
        address: "auto" for the cluster that this machine belongs to, "HOST:PORT" of its head node, or "local" for a
            cluster of this machine's cores, which ends with the block.

    Raises:
        ValueError: there is no such cluster, or one of another version of Ray or Python; one sentence says which.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    quiet = {"logging_level": logging.WARNING, "include_dashboard": False}
    if address == LOCAL:
        ray.init(LOCAL, num_cpus=available_cores(), **quiet)
        return
    if address != AUTO:
        _check_reachable(address)
    try:
        ray.init(address, logging_level=logging.WARNING)
    except RuntimeError as error:
        raise _mismatch(address, error) from error
    except ConnectionError as error:
        if address == AUTO:
            raise ValueError(f"there is no Ray cluster on this machine: {START_ONE}.") from error
        # Ray sends its token to an address only if RAY_AUTH_MODE says so.
        raise ValueError(
            f"the Ray cluster at {address} does not take this process: let this machine join it (ray start --address "
            f"{address}), and set RAY_AUTH_MODE=token if the cluster was started with a token."
        ) from error
    except Exception as error:  # Ray raises many kinds; none of them leaves a connection
        raise ValueError(f"cannot connect to the Ray cluster {address} ({first_line(error)}): {START_ONE}.") from error


def _check_reachable(address: str) -> None:
    """Find out quickly whether anything listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ValueError(
            f"--ray takes auto, local or HOST:PORT, and no {address.partition('://')[0]}:// address: run the command "
            "on a node of the cluster, for example with `ray job submit`."
        )
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"expected auto, local or HOST:PORT for --ray, got {address!r}.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS) as connection:
            speaks = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_http2(connection)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ValueError(f"no Ray cluster answers at {address} ({reason}): {START_ONE}.") from error
    if not speaks:
        raise ValueError(
            f"what answers at {address} is not a Ray cluster: give the address of its head node, whose port is 6379 "
            "unless `ray start` was given another one."
        )


def _speaks_http2(connection: socket.socket) -> bool:
    """Return whether a server greets as Ray's does, which speaks gRPC."""
    connection.settimeout(PROBE_SECONDS)
    try:
        connection.sendall(HTTP2_GREETING)
        answer = connection.recv(9)
    except OSError:
        return False
    return len(answer) == 9 and answer[3] == HTTP2_SETTINGS


def _mismatch(address: str, error: RuntimeError) -> ValueError:
    """Return what Ray says over many lines as one sentence."""
    found = VERSIONS.findall(str(error))
    if len(found) != 4:
        return ValueError(f"cannot connect to the Ray cluster {address} ({first_line(error)}): {START_ONE}.")
    theirs, ours = (" and ".join(f"{name} {version}" for name, version in half) for half in (found[:2], found[2:]))
    return ValueError(
        f"the Ray cluster {address} runs {theirs}, this process {ours}: install the same versions everywhere."
    )


__all__ = ["connected"]
