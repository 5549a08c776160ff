"""Play of many players, rendered in many ways, as a source of episodes: what `dreamer record --output_dir` stores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.episodes import Episode, StateInfo
from .goal_player import make_player
from .players import TRAINING_PLAYERS
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
        players: names of players as in `make_player`, of which each episode draws one.
        renderings: keys of `RENDERINGS`, of which each episode draws one.

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
    rewards: None = None

    def __post_init__(self) -> None:
        check_positive(**{name: getattr(self, name) for name in ("episodes", "frames_per_episode", "image_size")})
        check_players(self.players)
        check_renderings(self.renderings)
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
        player = make_player(player_name, rng)
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


def check_players(names: Sequence[str]) -> None:
    """Raise ValueError unless there are players, all of them known."""
    if not names:
        raise ValueError("expected at least one player for --players: give one, such as varied.")
    for name in names:
        make_player(name, np.random.default_rng(0))


def check_renderings(names: Sequence[str]) -> None:
    """Raise ValueError unless there are renderings, all of them known."""
    unknown = sorted(set(names) - set(RENDERINGS))
    if unknown or not names:
        problem = " ".join(unknown) or "nothing"
        raise ValueError(f"expected some of {', '.join(RENDERINGS)} for --renderings, got {problem}.")


__all__ = ["PushTPlaySource", "check_players", "check_positive", "draw_choices"]
