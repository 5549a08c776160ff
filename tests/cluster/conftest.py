"""Real Ray clusters on this machine: a head node without cores, and nodes of one core each."""

import contextlib
import os
import sys
from pathlib import Path

# Patience, as the machine may be busy; a killed node is noticed at once all the same, as its port is closed.
PATIENCE = {
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_health_check_timeout_ms": "60000",
}
HERE = Path(__file__).parent
os.environ |= PATIENCE | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path]),  # what workers import
}

import pytest
import ray
from ray.cluster_utils import Cluster

STORE_BYTES = 80 << 20


class TestCluster:
    """A cluster of this test.

    Attributes:
        address: for --ray.
        nodes: its nodes, without the head.
    """

    __test__ = False

    def __init__(self):
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False},
        )
        self.address = self._cluster.address
        self.nodes = []

    def add_node(self, **options):
        """Add a node of one core."""
        self.nodes.append(self._cluster.add_node(**{"num_cpus": 1, "object_store_memory": STORE_BYTES} | options))
        return self.nodes[-1]

    def kill_node(self, node) -> None:
        """Kill a node, as a power failure does."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def shut_down(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture
def cluster():
    """A cluster without nodes yet."""
    with contextlib.ExitStack() as stack:
        started = TestCluster()
        stack.callback(started.shut_down)
        yield started
