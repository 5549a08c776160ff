"""Diverse play in the gym-pusht simulator, recorded as a real LeRobotDataset (format v3.0).

Units: positions in simulator pixels, [0, 512] on both axes (y grows downwards); angles in radians; 10 frames a second.
Needs the extras `lerobot` and `pusht`.
"""

import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

WORLD_SIZE = 512.0
FPS = 10
MARGIN = 30.0
"""The target keeps this far from the walls: closer by, the agent squeezes the block through them."""
TEE_CENTER_OFFSET = 45.0
"""From the body's origin (the middle of the bar's upper edge) to about the middle of the T, in pixels."""
GOAL_POSE = (256.0, 256.0, np.pi / 4)
"""x, y and angle at which the simulator counts the block as delivered."""
NEAR_GOAL_SHARE = 0.25
"""Share of the episodes in which the block starts near the goal: a random start hardly ever gets there."""
VIDEO_QUALITY = 8
"""CRF of the AV1 video. LeRobot's default of 30 turns the agent, a few pixels wide, gray."""


class PushTPlayer:
    """Smooth, varied play: the target wanders, circles the block, rests, shoves the block from every side, and nudges
    it towards the goal.

    Held-out skills need varied data, not expert data: every habit lasts one to three seconds and is then drawn anew, so
    an episode of 80 frames shows several, at speeds between a crawl and a strike.

    Args:
        rng: source of every decision; the same generator state gives the same play.
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.habits = {self._wander: 0.2, self._push: 0.4, self._nudge: 0.2, self._orbit: 0.12, self._rest: 0.08}

    def reset(self, agent: np.ndarray) -> None:
        """Starts an episode with the target on the agent, (2,) xy."""
        self.target = agent.astype(np.float64)
        self.velocity = np.zeros(2)
        self._choose_habit()

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """Returns the next target position, (2,) float32 in [0, 512].

        Args:
            agent: (2,) xy of the agent.
            block_pose: (3,) x, y, angle of the block.
        """
        if self.frames_left == 0:
            self._choose_habit()
        self.frames_left -= 1
        self.angle = float(block_pose[2])
        self._move_towards(self.habit(agent, tee_center(block_pose)))
        return self.target.astype(np.float32)

    def _choose_habit(self) -> None:
        habits = list(self.habits)
        self.habit = habits[self.rng.choice(len(habits), p=list(self.habits.values()))]
        self.frames_left = int(self.rng.integers(10, 31))
        self.speed = float(self.rng.uniform(6, 36))  # pixels a frame
        self.smoothing = float(self.rng.uniform(0.3, 0.8))
        self.heading = float(self.rng.uniform(-np.pi, np.pi))
        self.turn = float(self.rng.choice([-1, 1]) * self.rng.uniform(0.1, 0.3))  # radians a frame
        self.waypoint = self.rng.uniform(25, WORLD_SIZE - 25, size=2)
        self.striking = False

    def _move_towards(self, goal: np.ndarray) -> None:
        offset = goal - self.target
        distance = np.linalg.norm(offset)
        wanted = offset * min(1.0, self.speed / max(distance, 1e-6))
        self.velocity = self.smoothing * self.velocity + (1 - self.smoothing) * wanted
        self.target = np.clip(self.target + self.velocity, MARGIN, WORLD_SIZE - MARGIN)

    def _wander(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        if np.linalg.norm(self.waypoint - self.target) < 20:
            self.waypoint = self.rng.uniform(25, WORLD_SIZE - 25, size=2)
        return self.waypoint

    def _push(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Takes a stand on one side of the block, then strikes through it to the other side.

        A block near a wall is brought back to the middle: the simulator's walls let a hard push through.
        """
        inwards = WORLD_SIZE / 2 - center
        if np.abs(inwards).max() > 120 and not self.striking:
            self.heading = float(np.arctan2(inwards[1], inwards[0]))
        direction = np.array([np.cos(self.heading), np.sin(self.heading)])
        stand = np.clip(center - 110 * direction, 20, WORLD_SIZE - 20)
        if np.linalg.norm(agent - stand) < 35:
            self.striking = True
        return np.clip(center + 90 * direction, 120, WORLD_SIZE - 120) if self.striking else stand

    def _nudge(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Pushes the block gently towards the goal, off its middle so that it turns the way that is missing."""
        to_goal = tee_center(np.array(GOAL_POSE)) - center
        distance = max(float(np.linalg.norm(to_goal)), 1e-6)
        direction = to_goal / distance
        missing = (GOAL_POSE[2] - self.angle + np.pi) % (2 * np.pi) - np.pi
        side = np.array([-direction[1], direction[0]]) * -30 * np.clip(missing / 0.5, -1, 1)
        self.speed = min(self.speed, 16.0)
        stand = np.clip(center + side - 100 * direction, 20, WORLD_SIZE - 20)
        if np.linalg.norm(agent - stand) < 30:
            self.striking = True
        # The agent ends where its push has carried the block's middle onto the goal's, and no further.
        return stand + direction * min(distance + 30, 100) if self.striking else stand

    def _orbit(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        self.heading += self.turn
        return center + 120 * np.array([np.cos(self.heading), np.sin(self.heading)])

    def _rest(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        return self.target


def tee_center(block_pose: np.ndarray) -> np.ndarray:
    """x, y and angle of the block's body -> (2,) xy of about the middle of the T."""
    x, y, angle = block_pose
    return np.array([x, y]) + TEE_CENTER_OFFSET * np.array([-np.sin(angle), np.cos(angle)])


def pusht_features(image_size: int) -> dict:
    """The LeRobot features that `record_pusht` writes; `names` label the axes for players and plots."""
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


def make_pusht_env(image_size: int):
    """Creates the real simulator without a screen, giving `image_size` pixels square."""
    # pygame picks its video driver at import: without this line a machine that has no screen fails there.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gym_pusht  # noqa: F401  (registers the environment)
    import gymnasium

    return gymnasium.make(
        "gym_pusht/PushT-v0",
        obs_type="pixels_agent_pos",
        observation_width=image_size,
        observation_height=image_size,
        disable_env_checker=True,
    ).unwrapped


def record_pusht(
    repo_id: str,
    root: str | Path,
    episodes: int,
    frames_per_episode: int = 80,
    seed: int = 0,
    image_size: int = 128,
    video_quality: int | None = VIDEO_QUALITY,
) -> Path:
    """Records play in PushT as a LeRobotDataset v3.0 (AV1 video) and returns its folder.

    Frame t holds what was seen before command t, and command t itself: the absolute target position, (2,) float32 in
    [0, 512]. Episode e depends on (`seed`, e) alone. `video_quality` is the CRF of the video; None: LeRobot's own.

    Raises:
        FileExistsError: `root` exists already.
        ValueError: a count is not positive.
    """
    if min(episodes, frames_per_episode, image_size) < 1:
        raise ValueError("--episodes, --frames_per_episode and --image_size must each be at least 1.")
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already: choose another --root, or remove it first.")
    _quiet_third_parties()
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset.create(
        repo_id,
        fps=FPS,
        features=pusht_features(image_size),
        root=root,
        robot_type="pusht",
        streaming_encoding=True,
        rgb_encoder=None if video_quality is None else RGBEncoderConfig(crf=video_quality),
    )
    env = make_pusht_env(image_size)
    with tqdm(total=episodes * frames_per_episode, desc="recording PushT", unit="frame") as progress:
        for episode in range(episodes):
            _record_episode(dataset, env, frames_per_episode, np.random.default_rng([seed, episode]), progress)
    dataset.finalize()
    env.close()
    return root


def _quiet_third_parties() -> None:
    """Leaves the screen to our one progress bar.

    SVT-AV1 and `datasets` report on every episode otherwise, and lerobot at length that torchcodec finds no FFmpeg
    (PyAV does the work then, as well).
    """
    os.environ.setdefault("SVT_LOG", "1")
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()


def _record_episode(dataset, env, num_frames: int, rng: np.random.Generator, progress: tqdm) -> None:
    observation, _ = env.reset(seed=int(rng.integers(2**31)), options=start_options(rng))
    player = PushTPlayer(rng)
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
        observation, *_ = env.step(action)
        progress.update()
    dataset.save_episode()


def start_options(rng: np.random.Generator) -> dict | None:
    """Where an episode starts: anywhere (the simulator's own draw), or with the block near the goal."""
    if rng.random() >= NEAR_GOAL_SHARE:
        return None
    agent = rng.uniform(50, 450, size=2)
    block = np.array(GOAL_POSE) + rng.uniform(-1, 1, size=3) * (60, 60, 0.7)
    return {"reset_to_state": [*agent, *block]}
