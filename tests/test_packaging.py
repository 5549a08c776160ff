"""What is shipped: every import is a declared dependency, and the wheel works alone."""

import ast
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import dreamer_hf

ROOT = Path(__file__).parents[1]
OURS = {
    "dreamer_hf",
    "fuzz",
    "elementwise_dreamer4",
    "plain_dreamer4",
    "measuring",
    "serve",
    "browser",
    "static_server",
    "waiting",
    "commands",
    "tiny",
    "hub_stand_in",
    "without_package",
    "computed_source",
    "ftp_server",
    "s3_server",
    "tiny_videos",
    "made_up",
    "serving",
    "agent_experiment",
    "demo_agent",
    "drawn_scenes",
}
"""Modules of this repository that its own files import by their name."""


DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
"""Distributions whose modules have another name."""


def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> set[str]:
    """The names in a list of requirements, normalized."""
    names = (re.match(r"[A-Za-z0-9._-]+", line)[0] for line in text.split("\n") if line and line[0] not in "#")
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names} - {"dreamer-hf"}


def declared(*extras: str) -> set[str]:
    config = setup_cfg()
    base = requirements(config["options"]["install_requires"])
    return base.union(*(requirements(config["options.extras_require"][extra]) for extra in extras))


def imported(*folders: str) -> dict[str, set[str]]:
    """For each module of another package that files import: these files."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            siblings = {other.stem for other in path.parent.glob("*.py")}
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                for name in names:
                    top = name.partition(".")[0]
                    if top not in {*sys.stdlib_module_names, *OURS, *siblings}:
                        found.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    return found


def undeclared(modules: dict[str, set[str]], allowed: set[str]) -> dict[str, set[str]]:
    return {module: files for module, files in modules.items() if distribution(module) not in allowed}


def distribution(module: str) -> str:
    """The normalized name of the distribution that brings `module`."""
    return DISTRIBUTIONS.get(module, module.replace("_", "-").lower())


def test_every_import_of_the_package_is_a_declared_dependency():
    extras = set(setup_cfg()["options.extras_require"]) - {"all", "dev", "docs", "release"}
    assert undeclared(imported("src", "examples", "conversion"), declared(*extras)) == {}


def test_every_import_of_tests_and_benchmarks_is_a_declared_dependency():
    extras = set(setup_cfg()["options.extras_require"]) - {"all"}
    assert undeclared(imported("tests", "benchmarks", "reference"), declared(*extras)) == {}


def test_every_base_dependency_is_imported():
    assert declared() - {distribution(module) for module in imported("src")} == set()


def test_all_extras_are_in_all():
    extras = setup_cfg()["options.extras_require"]
    assert set(re.search(r"\[(.*)\]", extras["all"])[1].split(",")) == set(extras) - {"all"}


def test_every_dependency_of_base_and_torch_is_explained():
    text = (ROOT / "docs" / "install.md").read_text().lower()
    assert {name for name in declared("torch", "video") if f"`{name}`" not in text.replace("_", "-")} == set()


def test_the_version_is_in_the_changelog_and_the_citation():
    assert f"\n## {dreamer_hf.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {dreamer_hf.__version__}\n" in (ROOT / "CITATION.cff").read_text()
