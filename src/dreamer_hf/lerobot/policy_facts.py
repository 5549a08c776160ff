"""What a LeRobot policy expects and gives, read from its files without loading it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open

from ..data.hub import HUB_ERRORS

CONFIG_NAME, POSTPROCESSOR_NAME = "config.json", "policy_postprocessor.json"
STATE, ACTION, ENVIRONMENT_STATE = "observation.state", "action", "observation.environment_state"
NO_CAMERA = "empty_camera"
"""Part of the names of images that policies fill themselves if there is none."""


@dataclass(frozen=True)
class PolicyFacts:
    """A policy, described.

    Attributes:
        path: folder or Hub repository.
        images: for each image that it looks at, height and width.
        state_size: numbers of `observation.state`; None if it needs none.
        needs_environment_state: whether it needs `observation.environment_state`.
        action_size: numbers of an action; None if it does not say.
        action_spread: (A,) standard deviations of the actions that it learned from; None if it does not say.
    """

    path: str
    images: dict[str, tuple[int, int]]
    state_size: int | None = None
    needs_environment_state: bool = False
    action_size: int | None = None
    action_spread: np.ndarray | None = None


def read_policy_facts(path: str) -> PolicyFacts | None:
    """Describe a policy; None if there is none at `path`, or a damaged one, which LeRobot reports better."""
    file = _find(path, CONFIG_NAME)
    try:
        return None if file is None else _describe(path, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _describe(path: str, config: dict) -> PolicyFacts:
    inputs, outputs = config.get("input_features") or {}, config.get("output_features") or {}
    images = {
        name: tuple(feature["shape"][-2:])
        for name, feature in inputs.items()
        if feature["type"] == "VISUAL" and NO_CAMERA not in name
    }
    return PolicyFacts(
        path,
        images,
        inputs[STATE]["shape"][0] if STATE in inputs else None,
        ENVIRONMENT_STATE in inputs,
        outputs[ACTION]["shape"][0] if ACTION in outputs else None,
        _action_spread(path),
    )


def policy_on_command_line() -> tuple[PolicyFacts | None, dict[str, str]]:
    """Return the policy that this process was started with (`--policy.path`), and its `--rename_map`.

    LeRobot's commands make an environment or a robot before they load the policy, and tell neither of the other. With
    a `--config_path`, nothing is returned: the map is in that file.
    """
    from lerobot.configs import parser

    path = parser.get_path_arg("policy")
    if path is None or parser.parse_arg("config_path") is not None:
        return None, {}
    try:
        given = yaml.safe_load(parser.parse_arg("rename_map") or "{}")
    except yaml.YAMLError:  # LeRobot reports it
        given = {}
    return read_policy_facts(path), given if isinstance(given, dict) else {}


def _action_spread(path: str) -> np.ndarray | None:
    """Return the standard deviations by which the policy's actions are brought to their units, if it has them."""
    file = _find(path, POSTPROCESSOR_NAME)
    steps = [] if file is None else json.loads(file.read_text(encoding="utf-8")).get("steps", [])
    for step in steps:
        state = step.get("state_file") and _find(path, step["state_file"])
        if not state:
            continue
        try:
            with safe_open(state, "numpy") as tensors:
                if f"{ACTION}.std" in tensors.keys():  # noqa: SIM118
                    return tensors.get_tensor(f"{ACTION}.std").astype(np.float64)
        except SafetensorError:
            return None
    return None


def _find(path: str, name: str) -> Path | None:
    """Return a file of a policy's folder or repository; None if it has none."""
    if Path(path).is_dir():
        return Path(path) / name if (Path(path) / name).is_file() else None
    try:
        return Path(hf_hub_download(path, name))
    except HUB_ERRORS:
        return None


__all__ = ["PolicyFacts", "policy_on_command_line", "read_policy_facts"]
