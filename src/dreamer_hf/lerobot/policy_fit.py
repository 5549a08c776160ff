"""Whether a policy and a world fit each other, and what helps if they do not."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .policy_facts import STATE, PolicyFacts
from .world_facts import WorldFacts


def check_policy_fits(
    world: WorldFacts,
    policy: PolicyFacts,
    images: list[str],
    state_names: tuple[str, ...],
    rename_map: Mapping[str, str],
) -> None:
    """Raise a ValueError that names both sides unless the policy can act in the world.

    Args:
        world: the world.
        policy: the policy.
        images: names of the images that the policy will get, such as "observation.images.front".
        state_names: names of the numbers that it will get as `observation.state`.
        rename_map: LeRobot's `--rename_map`: new names of images and state.
    """
    _check_action(world, policy)
    _check_state(world, policy, state_names, rename_map)
    _check_images(world, policy, images, rename_map)


def _check_action(world: WorldFacts, policy: PolicyFacts) -> None:
    if policy.action_size not in (None, world.actions.size):
        raise ValueError(
            f"the policy {policy.path} gives actions of {policy.action_size} numbers, but the world {world.model} "
            f"takes {world.actions.size} ({', '.join(world.actions.names)}): choose a world of the robot that the "
            "policy was trained for."
        )


def _check_state(
    world: WorldFacts, policy: PolicyFacts, state_names: tuple[str, ...], rename_map: Mapping[str, str]
) -> None:
    if policy.needs_environment_state:
        raise ValueError(
            f"the policy {policy.path} needs observation.environment_state, which the world {world.model} does not "
            "have: choose a policy that looks at images."
        )
    wanted = policy.state_size
    if wanted is None or STATE in rename_map.values():
        return
    if not state_names:
        raise ValueError(
            f"the policy {policy.path} needs observation.state of {wanted} numbers, but the world {world.model} has "
            "no state: train a world on data with a state (docs/state-and-cameras.md), or, for a world of PushT, add "
            "--env.state=pusht, which reads it from the images."
        )
    if wanted != len(state_names):
        raise ValueError(
            f"the policy {policy.path} needs observation.state of {wanted} numbers, but the state of the world "
            f"{world.model} has {len(state_names)} ({', '.join(state_names)}): convert the data that the policy was "
            "trained on with the same --state_key, and train the world again."
        )


def _check_images(world: WorldFacts, policy: PolicyFacts, images: list[str], rename_map: Mapping[str, str]) -> None:
    renamed = [rename_map.get(name, name) for name in images]
    missing = [name for name in policy.images if name not in renamed]
    if not missing:
        return
    spare = [name for name, new in zip(images, renamed, strict=True) if new not in policy.images]
    sides = (
        f"the policy {policy.path} expects {', '.join(policy.images)}, but the world {world.model} shows "
        f"{', '.join(renamed)}"
    )
    if len(spare) < len(missing):
        raise ValueError(f"{sides}: choose a world that was trained on all cameras of the policy.")
    suggestion = dict(rename_map) | dict(zip(spare, missing))
    raise ValueError(f"{sides}: tell which is which, for example with --rename_map='{json.dumps(suggestion)}'.")


__all__ = ["check_policy_fits"]
