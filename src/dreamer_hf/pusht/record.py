"""Recording scripted play in PushT, as shards or as a LeRobotDataset. Needs the extra `pusht`; a LeRobotDataset also
needs `lerobot`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.conversion_options import ConversionOptions, JobOptions, available_cores
from ..data.convert import convert
from ..real_time import leave_real_time
from .goal_player import make_player
from .play_source import PushTPlaySource, check_players, check_positive, draw_choices
from .players import TRAINING_PLAYERS
from .pusht_options import RecordOptions
from .renderings import RENDERINGS
from .task import FPS, draw_reset_options, make_pusht_env

VIDEO_QUALITY = 8
"""CRF of the AV1 video. LeRobot's default of 30 turns the agent, which is a few pixels wide, gray."""


def record(options: RecordOptions) -> Path:
    """Record what the options say and return the folder.

    Raises:
        FileExistsError: the folder is in use.
        ValueError: a value is out of range, or there is no such player or rendering.
    """
    if options.output_dir is None:
        size, players = options.image_size or 128, options.players or ("varied",)
        counts = options.episodes, options.frames_per_episode, options.seed
        return record_pusht(options.repo_id, options.root, *counts, size, players=players)
    source = PushTPlaySource(
        episodes=options.episodes,
        frames_per_episode=options.frames_per_episode,
        seed=options.seed,
        image_size=options.image_size or 96,
        players=tuple(options.players or TRAINING_PLAYERS),
        renderings=tuple(options.renderings or RENDERINGS),
    )
    num_workers = available_cores() if options.num_workers is None else options.num_workers
    job = JobOptions(num_workers, options.resume)
    return convert(source, options.output_dir, ConversionOptions(relative_actions=True), job)


def record_pusht(
    repo_id: str,
    root: str | Path,
    episodes: int = 160,
    frames_per_episode: int = 80,
    seed: int = 0,
    image_size: int = 128,
    video_quality: int | None = VIDEO_QUALITY,
    players: Sequence[str] = ("varied",),
) -> Path:
    """Record play in PushT as a LeRobotDataset v3.0 with AV1 video.

    Frame t is what was seen before command t, together with command t: the absolute target position, (2,) float32 in
    [0, 512].

    Args:
        repo_id: name of the dataset.
        root: folder to write. It must not exist.
        episodes: number of episodes.
        frames_per_episode: frames of each episode, at 10 per second.
        seed: seed of the play. Episode e depends on (seed, e) only.
        image_size: side of the frames in pixels.
        video_quality: CRF of the video; None for LeRobot's default.
        players: names of players as in `make_player`, of which each episode draws one.

    Returns:
        `root`.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a count is not positive, or there is no such player.
    """
    check_positive(episodes=episodes, frames_per_episode=frames_per_episode, image_size=image_size)
    check_players(players)
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already: choose another --root, or remove it first.")
    _quiet_third_parties()
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset.create(
        repo_id,
        fps=FPS,
        features=_features(image_size),
        root=root,
        robot_type="pusht",
        streaming_encoding=True,
        encoder_queue_maxsize=0,  # unlimited: LeRobot drops the frames that a full queue refuses
        rgb_encoder=None if video_quality is None else RGBEncoderConfig(crf=video_quality),
    )
    env = make_pusht_env(image_size)
    with tqdm(total=episodes * frames_per_episode, desc="recording PushT", unit="frame") as progress:
        for episode in range(episodes):
            (player,) = draw_choices(seed, episode, players)
            rng = np.random.default_rng([seed, episode])
            _record_episode(dataset, env, frames_per_episode, player, rng, progress)
    dataset.finalize()
    env.close()
    return root


def _features(image_size: int) -> dict:
    """Return the LeRobot features of a recording. `names` label the components for players and plots."""
    return {
        "observation.image": {
            "dtype": "video",
            "shape": (image_size, image_size, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["agent_x", "agent_y"]},
        "observation.environment_state": {
            "dtype": "float32",
            "shape": (3,),
            "names": ["block_x", "block_y", "block_angle"],
        },
        "action": {"dtype": "float32", "shape": (2,), "names": ["target_x", "target_y"], "units": "px of 512"},
    }


def _quiet_third_parties() -> None:
    """Keep the terminal free for one progress bar.

    SVT-AV1 and `datasets` report on every episode, and lerobot warns at length that torchcodec does not find FFmpeg
    (it then uses PyAV, which is as good).
    """
    os.environ.setdefault("SVT_LOG", "1")
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()


def _record_episode(dataset, env, num_frames: int, player_name: str, rng: np.random.Generator, progress: tqdm) -> None:
    observation, _ = env.reset(seed=int(rng.integers(2**31)), options=draw_reset_options(rng))
    player = make_player(player_name, rng)
    player.reset(observation["agent_pos"])
    for _ in range(num_frames):
        block_pose = np.array([*env.block.position, env.block.angle % (2 * np.pi)])
        action = player.act(observation["agent_pos"], block_pose)
        dataset.add_frame(
            {
                "observation.image": observation["pixels"],
                "observation.state": observation["agent_pos"].astype(np.float32),
                "observation.environment_state": block_pose.astype(np.float32),
                "action": action,
                "task": "Play with the block.",
            }
        )
        leave_real_time()
        observation, *_ = env.step(action)
        progress.update()
    dataset.save_episode()
    leave_real_time()


__all__ = ["record", "record_pusht"]
