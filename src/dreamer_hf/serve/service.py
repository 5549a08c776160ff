"""A served world: the engine, who is in, and the recordings; built once, handed to every route."""

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..modeling_dreamer_world import DreamerWorldModel
from ..play.controls import KEY_PAIRS
from ..start_frames import StartFrames
from .dreams import Dreams
from .engine import Engine
from .lobby import Lobby
from .metrics import Metrics
from .options import ServeOptions
from .recording import Recording


class Service:
    """Everything behind the routes.

    Args:
        world: in eval mode.
        starts: where dreams begin.
        options: of the server.

    Raises:
        ValueError: what does not fit together.
    """

    def __init__(self, world: DreamerWorldModel, starts: StartFrames, options: ServeOptions):
        options.check()
        self.options = options
        self.fps = world.config.dynamics_config.fps
        self.metrics = Metrics()
        self.dreams = Dreams(world, starts, options.num_inference_steps)
        self.engine = Engine(self.dreams, self.fps, self.metrics)
        self.lobby = Lobby(self.engine, options.max_sessions, options.idle_seconds, self.metrics)
        self.description = describe(self.dreams, self.fps, options.model)
        self._encoder = ThreadPoolExecutor(1, "dreamer-recorder")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Dreams while the block runs; recordings are gone after it."""
        with tempfile.TemporaryDirectory(prefix="dreamer_recordings_") as folder:
            self._recordings = Path(folder)
            self.engine.start(asyncio.get_running_loop())
            watch = asyncio.create_task(self.lobby.watch())
            try:
                yield
            finally:
                watch.cancel()
                self.engine.stop()
                self._encoder.shutdown(cancel_futures=True)

    def new_recording(self) -> Recording:
        """An empty recording."""
        path = self._recordings / f"dream-{secrets.token_hex(4)}.mp4"
        return Recording(path, self.fps, round(self.options.max_recording_seconds * self.fps), self._encoder)


def describe(dreams: Dreams, fps: float, model: str) -> dict:
    """What a client has to know about a world, for JSON: its size, rate, starts, and actions in raw units."""
    space = dreams.space
    return {
        "model": model,
        "frame_size": dreams.world.config.tokenizer_config.frame_size,
        "fps": fps,
        "num_starts": len(dreams.starts),
        "actions": {
            "names": list(space.names),
            "units": None if space.units is None else list(space.units),
            "low": space.low.tolist(),
            "high": space.high.tolist(),
            "rest": space.rest.tolist(),
            "discrete": space.discrete.tolist(),
            "relative": space.is_relative,
            "keys": [list(pair) for pair in KEY_PAIRS[: space.size]],
        },
    }
