"""Record a drawn two-joint arm as a LeRobotDataset: data to try the tools with, without a robot.

The arm follows its joint targets with a lag. Frames have 96 x 72 pixels at 10 frames/s; actions are absolute joint
targets and states are joint angles, both in radians.

    python examples/record_arm.py --repo_id me/arm --root data/arm-lerobot
"""

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from dreamer_hf.cli import run_script

WIDTH, HEIGHT, FPS = 96, 72, 10
SCALE = 4
"""The arm is drawn at this multiple of the final size and averaged down, which smooths its edges."""
BASE = np.array([WIDTH / 2, HEIGHT - 8.0])
LENGTHS = (26.0, 20.0)
JOINT_RANGE = ((-2.6, -0.5), (-1.8, 1.8))
LAG = 0.35
"""Share of the distance to its target that a joint covers in one frame."""
BACKGROUND, LINK, JOINT = (214, 218, 222), (58, 92, 160), (232, 120, 44)


def draw_arm(angles: np.ndarray) -> np.ndarray:
    """Draw the arm at two joint angles in radians: uint8 (72, 96, 3) RGB."""
    image = np.full((HEIGHT * SCALE, WIDTH * SCALE, 3), BACKGROUND, np.uint8)
    points = [BASE]
    for length, angle in zip(LENGTHS, np.cumsum(angles)):
        points.append(points[-1] + length * np.array([np.cos(angle), np.sin(angle)]))
    pixels = [tuple(int(value) for value in np.round(point * SCALE)) for point in points]
    for start, end in pairwise(pixels):
        cv2.line(image, start, end, LINK, 6 * SCALE, cv2.LINE_AA)
    for pixel in pixels:
        cv2.circle(image, pixel, 4 * SCALE, JOINT, -1, cv2.LINE_AA)
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def arm_episode(rng: np.random.Generator, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one episode: states and actions, each float32 (num_frames, 2).

    Targets jump to a new place every few frames or drift slowly, as in teleoperation.
    """
    low, high = np.array(JOINT_RANGE).T
    angles = rng.uniform(low, high)
    target, drift = angles.copy(), np.zeros(2)
    states, actions = [], []
    for _ in range(num_frames):
        if rng.random() < 0.12:
            target, drift = rng.uniform(low, high), np.zeros(2)
        elif rng.random() < 0.15:
            drift = rng.normal(0, 0.12, 2)
        target = np.clip(target + drift, low, high)
        states.append(angles.copy())
        actions.append(target.copy())
        angles = angles + LAG * (target - angles)
    return np.array(states, np.float32), np.array(actions, np.float32)


def record_arm(repo_id: str, root: str, episodes: int, frames_per_episode: int, seed: int) -> Path:
    """Record the dataset and return its folder.

    Raises:
        FileExistsError: If `root` exists.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if Path(root).exists():
        raise FileExistsError(f"{root} already exists: choose another --root.")
    joints = ["shoulder", "elbow"]
    features = {
        "observation.image": {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": joints},
        "action": {"dtype": "float32", "shape": (2,), "names": joints},
    }
    dataset = LeRobotDataset.create(repo_id, FPS, features, root=root, use_videos=True)
    rng = np.random.default_rng(seed)
    for _ in range(episodes):
        for state, action in zip(*arm_episode(rng, frames_per_episode)):
            frame = {"observation.image": draw_arm(state), "observation.state": state, "action": action}
            dataset.add_frame(frame | {"task": "Move the arm."})
        dataset.save_episode()
    dataset.finalize()
    return Path(root)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo_id", required=True, help="Name of the dataset, such as me/arm.")
    parser.add_argument("--root", required=True, help="Folder to write. It must not exist yet.")
    parser.add_argument("--episodes", type=int, default=60, help="Number of episodes (default: %(default)s).")
    parser.add_argument("--frames_per_episode", type=int, default=80, help="Frames of each (default: %(default)s).")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the movements (default: %(default)s).")
    return parser.parse_args()


def main() -> None:
    print(f"Recorded {record_arm(**vars(parse_args()))}.")


if __name__ == "__main__":
    run_script(main)
