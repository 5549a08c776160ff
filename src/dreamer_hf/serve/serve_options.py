"""The options of a server. Imports nothing that takes time."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..options import WorldOptions, option, ray_option
from ..play.play_options import CONTROLS

TOKEN_VARIABLE = "DREAMER_TOKEN"
ACCESS, LIMITS, CLUSTER = "access", "limits", "cluster"
POSITIVE = (
    "max_sessions",
    "max_connections",
    "request_seconds",
    "max_message_bytes",
    "max_messages_per_second",
    "idle_seconds",
    "max_recording_seconds",
    "engine_cpus",
    "drain_seconds",
)


@dataclass
class ServeOptions(WorldOptions):
    """What can be chosen when serving a world.

    The token may come from a file or from the environment, where other users of the machine cannot read it. It is
    `token` once `check` has returned.
    """

    control: str = option(
        "auto",
        choices=CONTROLS,
        help="How the input becomes an action; direct: the stick is the action; target: the stick moves the action; "
        "auto: what suits the world.",
    )
    compile: bool = option(
        False,
        help="Compile the model before the first player: minutes for each of 1, 2, 4, ... rows up to --max_sessions. "
        "Then nothing is compiled while players come and go. For GPUs; on a CPU, ONNX Runtime needs no compiling.",
    )
    trust: bool = option(
        False,
        help="Show and send how far each frame can be believed. Costs a second dream for each player, and needs the "
        "trust.json that dreamer trust saves with the world.",
    )
    host: str = option("127.0.0.1", group=ACCESS, help="Address to listen on; the default reaches this machine only.")
    port: int = option(8000, group=ACCESS, help="Port to listen on; 0 takes any that is free.")
    token: str | None = option(
        None,
        group=ACCESS,
        help="Secret that clients have to send. Prefer --token_file, or the environment variable "
        f"{TOKEN_VARIABLE}: other users of this machine can read a command line.",
    )
    token_file: str | None = option(None, group=ACCESS, metavar="FILE", help="File that holds the token.")
    allowed_host: tuple[str, ...] = option(
        (),
        group=ACCESS,
        metavar="NAME",
        help="Further names that clients may address the server by, such as that of a proxy in front of it. On the "
        "loopback address without a token, only localhost is accepted otherwise.",
    )
    max_sessions: int = option(
        16, group=LIMITS, help="Players and policies at the same time; with --ray, on each engine."
    )
    max_connections: int = option(512, group=LIMITS, help="Network connections at the same time.")
    request_seconds: float = option(
        10.0, group=LIMITS, help="Seconds within which the head of a request must arrive, and then its body."
    )
    max_message_bytes: int = option(4096, group=LIMITS, help="Size of a message or of a request's body, in bytes.")
    max_messages_per_second: float = option(120.0, group=LIMITS, help="Messages of a player per second.")
    idle_seconds: float = option(
        120.0, group=LIMITS, help="Seconds after which silent policies and paused players lose their places."
    )
    max_recording_seconds: float = option(600.0, group=LIMITS, help="Length of a recording in seconds.")
    jpeg_quality: int = option(90, group=LIMITS, help="Quality of the frames in the browser, 1 to 100.")

    ray: str | None = ray_option(group=CLUSTER)
    engines: int | None = option(
        None, group=CLUSTER, help="Engines on the cluster. Defaults to one for each GPU, or for each node without any."
    )
    engine_cpus: float = option(1.0, group=CLUSTER, help="CPU cores of an engine.")
    drain_seconds: float = option(
        600.0, group=CLUSTER, help="Seconds that players may stay on an engine that is being removed."
    )

    def check(self) -> None:
        """Read the token if it is in a file or in the environment, and refuse what cannot be served.

        Raises:
            ValueError: a value is out of range, or there is no token where one was promised.
        """
        if not 0 <= self.port <= 65535:
            raise ValueError(f"expected 0 (any free port) to 65535 for --port, got {self.port}.")
        if self.control not in CONTROLS:
            raise ValueError(f"unknown --control {self.control!r}: choose one of {', '.join(CONTROLS)}.")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"expected 1 to 100 for --jpeg_quality, got {self.jpeg_quality}.")
        for name in POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"expected a positive number for --{name}, got {getattr(self, name)}.")
        if self.engines is not None and self.engines < 1:
            raise ValueError(f"expected a positive int for --engines, got {self.engines}.")
        if self.token is None:
            self.token = self._stored_token()
        if self.token == "":
            raise ValueError("the token is empty: give a secret, or none at all.")

    def _stored_token(self) -> str | None:
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE)
        try:
            return Path(self.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read a token from --token_file {self.token_file} ({error}).") from error
