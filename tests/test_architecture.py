"""The shape of the package: imports run one way, and every file is small and has a unique name.

The tests read the sources and import nothing, so they also see the imports inside functions.
"""

import ast
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "dreamer_hf"
MAX_LINES = 500

FLOORS = (
    {
        "action_space",
        "camera_views",
        "configuration_base",
        "configuration_dreamer",
        "configuration_dreamer_agent",
        "configuration_dreamer_transformer",
        "extras",
        "scheduling_shortcut",
        "frame_inputs",
        "generation_config_dreamer",
        "options",
        "pacing",
        "reward_signal",
        "threads",
        "real_time",
        "rollout_noise",
        "rollout_schedule",
        "rotary",
        "seeded_noise",
        "start_sizes",
        "video_processing_dreamer",
        "weight_files",
        "worlds",
    },
    {
        "cache_dreamer",
        "compile_rollout",
        "rollout_frames",
        "weight_files",
        "agent_distributions",
        "agent_losses",
        "agent_rows",
    },
    {"modeling_layers", "agent_heads", "latent_rollout"},
    {"rollout"},
    {"generation_dreamer", "agent_episode", "agent_reward", "imagination", "generation_dreamer_agent"},
    {"modeling_dreamer_tokenizer", "modeling_dreamer_dynamics"},
    {"modeling_dreamer_world"},
    {"modeling_dreamer_agent"},
    {"registration", ""},
    {"data"},
    {
        "losses",
        "published_checkpoints",
        "convert_published",
        "remote_code",
        "adapters",
        "enlarge",
        "start_frames",
        "state_space",
        "media",
        "image_metrics",
    },
    {"loading"},
    {"onnx"},
    {"engines"},
    {"trust"},
    {"dreams", "planning"},
    {"pusht"},
    {"reward_functions"},
    {"evaluation", "labeling"},
    {"play"},
    {"envs", "serve", "training", "web", "demo", "ranking"},
    {"lerobot"},
    {"policy_export"},
    {"cluster"},
    {"cli", "train", "hub_env", "__main__"},
)
"""The rooms of the package from the ground up: the top-level modules and folders ("" is the package itself).

A room imports from its own floor and from the floors below it. In addition, `data` imports no model (`DATA_IMPORTS`).
"""

DATA_IMPORTS = {"data", "frame_inputs", "options", ""}

LONG_FILES = {"configuration_dreamer.py", "plain_dreamer4.py"}
"""Files of more than `MAX_LINES` lines: three configs with their documentation, and the file that explains all."""


@cache
def modules() -> dict[str, Path]:
    """The files of the package by module name."""

    def name(path: Path) -> str:
        return ".".join(path.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__")

    return {name(path): path for path in sorted(SRC.rglob("*.py"))}


@cache
def imports() -> dict[str, set[str]]:
    """For each module, the modules of the package that its file imports anywhere, except for type checkers only."""
    return {name: set(_imported(name, path)) for name, path in modules().items()}


def _imported(name: str, path: Path):
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules() else source
                if target in modules():
                    yield target


def _runtime_nodes(tree: ast.AST):
    """All nodes below `tree` but those of an `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _runtime_nodes(node)


def room(module: str) -> str:
    """The top-level module or folder that `module` belongs to. Every `__main__.py` is a script, wherever it lies."""
    if module.endswith(".__main__"):
        return "__main__"
    return module.removeprefix("dreamer_hf").removeprefix(".").partition(".")[0]


def floor(name: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if name in rooms:
            return number
    raise AssertionError(f"{name} has no floor yet: add it to FLOORS in {Path(__file__).name}.")


def test_imports_run_downward():
    edges = {(room(module), room(target)) for module, targets in imports().items() for target in targets}
    upward = {(above, below) for above, below in edges if floor(above) < floor(below)}
    assert upward == set()


def test_data_imports_no_model():
    targets = {room(target) for module, found in imports().items() if room(module) == "data" for target in found}
    assert targets - DATA_IMPORTS == set()


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes of `graph` from which a path leads back to the node itself."""

    def reachable(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    return {node for node in graph if node in reachable(node)}


def test_modules_import_each_other_in_no_circle():
    assert circles(imports()) == set()


def test_rooms_import_each_other_in_no_circle():
    graph = {room(module): set() for module in modules()}
    for module, targets in imports().items():
        # A package imports from its own `__init__.py`, and everything may ask the root for the version.
        graph[room(module)] |= {room(target) for target in targets} - {room(module), ""}
    assert circles(graph) == set()


def test_file_names_are_unique_and_shadow_nothing():
    names = [path.stem for path in modules().values() if not path.stem.startswith("__")]
    assert {name for name, count in Counter(names).items() if count > 1} == set()
    assert set(names) & sys.stdlib_module_names == set()


@pytest.mark.parametrize("folder", ["src", "tests", "examples", "conversion", "benchmarks", "reference"])
def test_no_file_is_longer_than_a_reader_can_hold(folder):
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths and {name for name, length in lengths.items() if length > MAX_LINES} <= LONG_FILES


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
