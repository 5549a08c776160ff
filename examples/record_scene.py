"""Record a drawn scene as a LeRobotDataset: data to try the tools with, without a robot.

    python examples/record_scene.py --scene arm --repo_id me/arm --root data/arm-lerobot
    python examples/record_scene.py --scene gripper --cameras 2 --repo_id me/gripper --root data/gripper-lerobot

See `drawn_scenes.py` for the scenes. The dataset has `observation.state`, `action`, and `observation.image`, or
`observation.images.front` and `observation.images.side` with two cameras.
"""

import argparse
from pathlib import Path

import numpy as np

from drawn_scenes import FPS, HEIGHT, SCENES, VIEWS, WIDTH, Scene
from dreamer_hf.cli import run_script


def record(scene: Scene, repo_id: str, root: str, cameras: int, episodes: int, num_frames: int, seed: int) -> Path:
    """Record the dataset and return its folder.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a number is not positive.
    """
    for name, value in (("episodes", episodes), ("frames_per_episode", num_frames)):
        if value < 1:
            raise ValueError(f"expected a positive int for --{name}, got {value}.")
    if Path(root).exists():
        raise FileExistsError(f"{root} already exists: choose another --root.")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    views = list(VIEWS)[:cameras]
    keys = ["observation.image"] if cameras == 1 else [f"observation.images.{view}" for view in views]
    image = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (len(scene.names),), "names": scene.names}
    features = dict.fromkeys(keys, image) | {"observation.state": vector, "action": vector}
    dataset = LeRobotDataset.create(repo_id, FPS, features, root=root, use_videos=True)
    rng = np.random.default_rng(seed)
    for _ in range(episodes):
        episode = scene.simulate(rng, num_frames)
        for pose, state, action in zip(episode.poses, episode.states, episode.actions):
            images = {key: scene.draw(pose, view) for key, view in zip(keys, views)}
            dataset.add_frame(images | {"observation.state": state, "action": action, "task": scene.task})
        dataset.save_episode()
    dataset.finalize()
    return Path(root)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", choices=list(SCENES), default="arm", help="What to record (default: %(default)s).")
    parser.add_argument("--repo_id", required=True, help="Name of the dataset, such as me/arm.")
    parser.add_argument("--root", required=True, help="Folder to write. It must not exist yet.")
    parser.add_argument("--cameras", type=int, choices=(1, 2), default=1, help="Number of cameras (default: 1).")
    parser.add_argument("--episodes", type=int, default=60, help="Number of episodes (default: %(default)s).")
    parser.add_argument("--frames_per_episode", type=int, default=80, help="Frames of each (default: %(default)s).")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the movements (default: %(default)s).")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    sizes = args.cameras, args.episodes, args.frames_per_episode, args.seed
    print(f"Recorded {record(SCENES[args.scene], args.repo_id, args.root, *sizes)}.")


if __name__ == "__main__":
    run_script(main)
