"""How fast LeRobot's environment dreams, and what it adds to the step of the world.

    python benchmarks/lerobot_env.py --world pusht-tiny --rows 16 --success pusht:coverage

Prints, for a batch of dreams: milliseconds per step of the world alone and of the environment (images resized, state
read from the images, actions converted, success judged), the share that the environment adds, and episodes per hour
with everything that an episode needs, its start included. The step of the world is measured inside of that of the
environment.
"""

import argparse
import statistics
import time

import numpy as np

from dreamer_hf.lerobot.config_dreamer_env import DreamerEnvConfig


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return seconds per step of the world and of the environment, and per episode of the batch."""
    config = DreamerEnvConfig(
        world=arguments.world,
        engine=arguments.engine,
        threads=arguments.threads,
        episode_length=arguments.steps,
        success=arguments.success,
        terminate_on_success=False,
        observation_height=arguments.size,
        observation_width=arguments.size,
    )
    (env,) = config.create_envs(arguments.rows)["dreamer"].values()
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    size = (arguments.rows, env.single_action_space.shape[0])
    world_only, everything, episodes = [], [], []
    step_of_world = env.dreams.step

    def timed_step(actions):
        before = clock()
        transition = step_of_world(actions)
        world_only.append(clock() - before)
        return transition

    env.dreams.step = timed_step
    for episode in range(arguments.episodes):
        started = clock()
        env.reset(seed=episode, options={"lerobot_new_rollout": True})
        for _ in range(arguments.steps):
            actions = rng.uniform(100, 400, size).astype(np.float32)
            before = clock()
            env.step(actions)
            everything.append(clock() - before)
        episodes.append(clock() - started)
    added = statistics.median(whole - part for whole, part in zip(everything, world_only, strict=True))
    world = statistics.median(world_only)
    return {
        "world": world,
        "environment": world + added,
        "episode": statistics.median(episodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="pusht-tiny", help="World (default: %(default)s).")
    parser.add_argument("--engine", default="auto", help="torch, onnx or auto (default: %(default)s).")
    parser.add_argument("--threads", type=int, help="CPU threads (default: measured).")
    parser.add_argument("--rows", type=int, default=16, help="Dreams in a batch (default: %(default)s).")
    parser.add_argument("--steps", type=int, default=64, help="Frames of an episode (default: %(default)s).")
    parser.add_argument("--episodes", type=int, default=3, help="Batches to measure (default: %(default)s).")
    parser.add_argument("--size", type=int, default=96, help="Side of the images (default: %(default)s).")
    parser.add_argument("--success", help="Reward function, such as pusht:coverage (default: none).")
    parser.add_argument(
        "--processor_time", action="store_true", help="Measure time of the processor, on a machine with other work."
    )
    arguments = parser.parse_args()
    seconds = measure(arguments)
    added = seconds["environment"] / seconds["world"] - 1
    print(
        f"{arguments.rows} dreams: step of the world {1000 * seconds['world']:.1f} ms, of the environment "
        f"{1000 * seconds['environment']:.1f} ms (+{added:.1%}), {3600 * arguments.rows / seconds['episode']:,.0f} "
        f"episodes of {arguments.steps} frames per hour"
    )


if __name__ == "__main__":
    main()
