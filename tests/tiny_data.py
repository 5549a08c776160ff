"""The tiny episodes behind the fixtures `tiny_lerobot` and `tiny_shards`, and how they are recorded."""

from pathlib import Path

import numpy as np

TINY_REPO_ID = "tests/tiny"
TINY_LENGTHS = (24, 40, 27, 33, 30, 36)
TINY_FPS = 10
TINY_IMAGE_SIZE = 32


def tiny_frame(position):
    """A picture (32, 32, 3) uint8 of a red dot at `position` (xy in [0, 1]) on blue over green."""
    frame = np.zeros((TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3), np.uint8)
    frame[: TINY_IMAGE_SIZE // 2] = (0, 0, 200)
    frame[TINY_IMAGE_SIZE // 2 :] = (0, 150, 0)
    x, y = (4 + np.asarray(position) * (TINY_IMAGE_SIZE - 9)).round().astype(int)
    frame[y - 3 : y + 4, x - 3 : x + 4] = (230, 20, 10)
    return frame


def tiny_episodes():
    """Per episode the positions before each command and the commands (steps): two arrays (frames, 2) float32."""
    for number, length in enumerate(TINY_LENGTHS):
        rng = np.random.default_rng(number)
        position, positions, actions = rng.uniform(0.2, 0.8, 2), [], []
        for _ in range(length):
            action = rng.uniform(-0.15, 0.15, 2)
            positions.append(position)
            actions.append(action)
            position = np.clip(position + action, 0, 1)
        yield np.array(positions, np.float32), np.array(actions, np.float32)


def write_tiny_lerobot(root: Path, use_videos: bool = True, cameras=("observation.image",)) -> None:
    """Writes the tiny episodes with lerobot itself; further cameras show the same scene mirrored."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = (TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3)
    names = ["height", "width", "channels"]
    features = {key: {"dtype": "video" if use_videos else "image", "shape": size, "names": names} for key in cameras}
    features["observation.state"] = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    features["action"] = {"dtype": "float32", "shape": (2,), "names": ["step_x", "step_y"]}
    dataset = LeRobotDataset.create(TINY_REPO_ID, TINY_FPS, features, root=root, use_videos=use_videos)
    for positions, actions in tiny_episodes():
        for position, action in zip(positions, actions, strict=True):
            frame = tiny_frame(position)
            pictures = {key: frame if i == 0 else frame[:, ::-1].copy() for i, key in enumerate(cameras)}
            dataset.add_frame({**pictures, "observation.state": position, "action": action, "task": "Move the dot."})
        dataset.save_episode()
    dataset.finalize()
