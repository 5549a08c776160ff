"""Play of many players in many pictures as a source of episodes: what `dreamer record --output_dir` stores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.episodes import Episode, StateInfo
from .pictures import PICTURES, Picture
from .players import PLAYERS, TRAINING_PLAYERS
from .stage import RGB_OF_BGRA, PushTStage
from .task import FPS

STATE = StateInfo("agent", 2, ["agent_x", "agent_y"], ["px of 512", "px of 512"])


@dataclass
class PushTPlaySource:
    """Episodes that are played when they are read; an `EpisodeSource`.

    Frame t is what was seen before command t, together with command t (the absolute target position) and the position
    of the agent. Episode e depends on the seed, e and its picture only: the same seed with other pictures is the same
    play.

    Args:
        episodes: number of episodes.
        frames_per_episode: frames of each, at 10 per second.
        seed: seed of the play.
        image_size: side of the frames in pixels.
        players, pictures: keys of `PLAYERS` and `PICTURES`, of which each episode draws one.

    Raises:
        ValueError: a number is not positive, or there is no such player or picture.
    """

    episodes: int
    frames_per_episode: int = 80
    seed: int = 0
    image_size: int = 96
    players: tuple[str, ...] = TRAINING_PLAYERS
    pictures: tuple[str, ...] = tuple(PICTURES)
    fps: float = float(FPS)
    action_dim: int = 2
    image_key: str = "observation.image"
    action_key: str = "action"
    camera_names: None = None
    state: StateInfo = STATE

    def __post_init__(self) -> None:
        check_positive(self, "episodes", "frames_per_episode", "image_size")
        check_names("players", self.players, PLAYERS)
        check_names("pictures", self.pictures, PICTURES)
        if self.image_size % 2 or self.image_size < 64:
            raise ValueError(f"expected an even --image_size of at least 64 for videos, got {self.image_size}.")
        self.action_names, self.action_units = ["target_x", "target_y"], ["px of 512", "px of 512"]
        self.numbers = range(self.episodes)
        self.lengths = [self.frames_per_episode] * self.episodes
        names = ("frames_per_episode", "seed", "image_size")
        self.description = {"simulator": "gym-pusht"} | {name: getattr(self, name) for name in names}
        self.description |= {"players": list(self.players), "pictures": list(self.pictures)}

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
            frames, targets, agents = self._play(stage, number)
            yield Episode(number, iter(frames[::frame_step]), lambda: targets, lambda: agents)
        stage.close()

    def choices(self, number: int) -> tuple[str, str]:
        """Return the player and the picture of an episode."""
        rng = np.random.default_rng([self.seed, number, 1])
        player = self.players[rng.integers(len(self.players))]
        return player, self.pictures[rng.integers(len(self.pictures))]

    def _play(self, stage: PushTStage, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames (T, S, S, 3) uint8 RGB, targets (T, 2) and agent positions (T, 2) of an episode."""
        rng, (player_name, picture_name) = np.random.default_rng([self.seed, number]), self.choices(number)
        picture: Picture = PICTURES[picture_name]
        stage.reset(rng)
        player = PLAYERS[player_name](rng)
        player.reset(stage.agent)
        frames = np.empty((self.frames_per_episode, self.image_size, self.image_size, 3), np.uint8)
        targets, agents = np.empty((2, self.frames_per_episode, 2), np.float32)
        for index, frame in enumerate(frames):
            frame[...] = picture.reduce(stage.draw(), self.image_size)[..., RGB_OF_BGRA]
            agents[index] = stage.agent
            targets[index] = player.act(stage.agent, stage.block_pose)
            stage.tick(targets[index])
        codec_rng = np.random.default_rng([self.seed, number, 2])
        return picture.compress(frames, codec_rng), targets, agents


def check_positive(options, *names: str) -> None:
    """Raise ValueError unless these attributes are positive."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"expected a positive int for --{name}, got {getattr(options, name)}.")


def check_names(option: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless something is chosen and all of it is known."""
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        raise ValueError(f"expected some of {', '.join(known)} for --{option}, got {' '.join(unknown) or 'nothing'}.")


__all__ = ["PushTPlaySource", "check_names", "check_positive"]
