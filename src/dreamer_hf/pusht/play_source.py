"""Play of many players, rendered in many ways, as a source of episodes: what `dreamer record --output_dir` stores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.episodes import Episode, StateInfo
from .players import PLAYERS, TRAINING_PLAYERS
from .renderings import RENDERINGS, Rendering
from .stage import RGB_OF_BGRA, PushTStage
from .task import FPS

CHOICE_STREAM, CODEC_STREAM = 1, 2
"""Random streams of an episode next to that of its play, so that the same seed gives the same play."""
STATE = StateInfo("agent", 2, ["agent_x", "agent_y"], ["px of 512", "px of 512"])


@dataclass
class PushTPlaySource:
    """Episodes that are played when they are read; an `EpisodeSource`.

    Frame t is what was seen before command t, together with command t (the absolute target position) and the position
    of the agent. The play of episode e depends on the seed and e only: with other renderings it stays the same.

    Args:
        episodes: number of episodes.
        frames_per_episode: frames of each, at 10 per second.
        seed: seed of the play.
        image_size: side of the frames in pixels.
        players, renderings: keys of `PLAYERS` and `RENDERINGS`, of which each episode draws one.

    Raises:
        ValueError: a number is not positive, or there is no such player or rendering.
    """

    episodes: int
    frames_per_episode: int = 80
    seed: int = 0
    image_size: int = 96
    players: tuple[str, ...] = TRAINING_PLAYERS
    renderings: tuple[str, ...] = tuple(RENDERINGS)
    fps: float = float(FPS)
    action_dim: int = 2
    image_key: str = "observation.image"
    action_key: str = "action"
    camera_names: None = None
    state: StateInfo = STATE

    def __post_init__(self) -> None:
        check_positive(**{name: getattr(self, name) for name in ("episodes", "frames_per_episode", "image_size")})
        check_names("players", self.players, PLAYERS)
        check_names("renderings", self.renderings, RENDERINGS)
        if self.image_size % 2 or self.image_size < 64:
            raise ValueError(f"expected an even --image_size of at least 64 for videos, got {self.image_size}.")
        self.action_names, self.action_units = ["target_x", "target_y"], ["px of 512", "px of 512"]
        self.numbers = range(self.episodes)
        self.lengths = [self.frames_per_episode] * self.episodes
        names = ("frames_per_episode", "seed", "image_size")
        self.description = {"simulator": "gym-pusht"} | {name: getattr(self, name) for name in names}
        self.description |= {"players": list(self.players), "renderings": list(self.renderings)}

    def check(self) -> None:
        """See `EpisodeSource.check`: whether the simulator is installed.

        Raises:
            ValueError: it is not.
        """
        try:
            PushTStage().close()
        except ImportError as error:
            raise ValueError("the PushT simulator is not installed: pip install 'dreamer_hf[pusht]'.") from error

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        stage = PushTStage()
        for number in numbers:
            yield self._play(stage, number, frame_step)
        stage.close()

    def choices(self, number: int) -> tuple[str, str]:
        """Return the player and the rendering of an episode."""
        return draw_choices(self.seed, number, self.players, self.renderings)

    def _play(self, stage: PushTStage, number: int, frame_step: int) -> Episode:
        rng, (player_name, rendering_name) = np.random.default_rng([self.seed, number]), self.choices(number)
        rendering: Rendering = RENDERINGS[rendering_name]
        stage.reset(rng)
        player = PLAYERS[player_name](rng)
        player.reset(stage.agent)
        frames = np.empty((self.frames_per_episode, self.image_size, self.image_size, 3), np.uint8)
        targets, agents = np.empty((2, self.frames_per_episode, 2), np.float32)
        for index, frame in enumerate(frames):
            frame[...] = rendering.reduce(stage.draw(), self.image_size)[..., RGB_OF_BGRA]
            agents[index] = stage.agent
            targets[index] = player.act(stage.agent, stage.block_pose)
            stage.tick(targets[index])
        codec_rng = np.random.default_rng([self.seed, number, CODEC_STREAM])
        frames = rendering.compress(frames, codec_rng)[::frame_step]
        return Episode(number, iter(frames), lambda: targets, lambda: agents)


def draw_choices(seed: int, episode: int, *options: Sequence[str]) -> tuple[str, ...]:
    """Draw one of each of these options for an episode: the player first, then, for shards, the rendering."""
    rng = np.random.default_rng([seed, episode, CHOICE_STREAM])
    return tuple(names[rng.integers(len(names))] for names in options)


def check_positive(**values: int) -> None:
    """Raise ValueError unless all options are positive."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"expected a positive int for --{name}, got {value}.")


def check_names(option: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless something is chosen and all of it is known."""
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        raise ValueError(f"expected some of {', '.join(known)} for --{option}, got {' '.join(unknown) or 'nothing'}.")


__all__ = ["PushTPlaySource", "check_names", "check_positive", "draw_choices"]
