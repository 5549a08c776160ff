"""What somebody who serves a world can choose."""

import math
from dataclasses import dataclass

from ..options import WorldOptions
from ..play.play_options import CONTROLS


@dataclass
class ServeOptions(WorldOptions):
    """The choices of a server; `python -m dreamer_hf.serve --help` explains each."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    control: str = "auto"
    max_sessions: int = 16
    max_message_bytes: int = 4096
    max_messages_per_second: float = 120.0
    idle_seconds: float = 120.0
    max_recording_seconds: float = 600.0
    jpeg_quality: int = 90

    def check(self) -> None:
        """Raises a ValueError for what cannot be served."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port} is no port: give one from 0 (any free one) to 65535.")
        if self.control not in CONTROLS:
            raise ValueError(f"unknown --control {self.control!r}: choose one of {', '.join(CONTROLS)}.")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"--jpeg_quality {self.jpeg_quality} is out of range: give 1 to 100.")
        if self.token == "":
            raise ValueError("--token is empty: give a secret, or leave it out.")
        positive = ("max_sessions", "max_message_bytes", "max_messages_per_second", "idle_seconds")
        for name in (*positive, "max_recording_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name} {getattr(self, name)} lets nobody play: give a positive number.")
