"""Conversion on real clusters: the same bytes as on one machine, whatever dies."""

import pytest

from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import RayWorkers
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from tiny import TINY_REPO_ID

pytestmark = pytest.mark.slow
OPTIONS = ConversionOptions(episodes_per_shard=1)


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_nodes_write_the_bytes_of_one_machine(cluster, tiny_lerobot, tmp_path):
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    convert(source, tmp_path / "one", OPTIONS)
    for _ in range(2):
        cluster.add_node()
    with connected(cluster.address):
        convert(source, tmp_path / "many", OPTIONS, workers=RayWorkers())
    assert content(tmp_path / "many") == content(tmp_path / "one")
