"""Real Ray clusters on this machine: a head node without cores, and nodes of one core each."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

# Patience, as the machine may be busy; a killed node is noticed at once all the same, as its port is closed.
PATIENCE = {
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_worker_niceness": "0",  # by default, workers wait for everybody else
}
os.environ |= PATIENCE | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),  # what workers import
}

import pytest  # noqa: E402
import ray  # noqa: E402
from ray._raylet import persist_port  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from waiting import wait_until  # noqa: E402

STORE_BYTES = 80 << 20
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")


class TestCluster:
    """A cluster of this test.

    Attributes:
        address: for --ray.
        nodes: its nodes, without the head.
    """

    __test__ = False

    def __init__(self):
        self._folder = tempfile.mkdtemp(prefix="ray")  # short: sockets lie in it
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._folder}
        self._cluster = Cluster(initialize_head=True, head_node_args=self.node_options(**head))
        self.address = self._cluster.address
        self.nodes = []

    def add_node(self, **options):
        """Add a node of one core."""
        self.nodes.append(self._cluster.add_node(**self.node_options(**{"num_cpus": 1} | options)))
        return self.nodes[-1]

    def kill_node(self, node) -> None:
        """Kill a node, as a power failure does."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def shut_down(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def node_options(self, **options) -> dict:
        """Return the options of a small node whose agents have fixed ports.

        A node gives up if its agents, which are Python processes, do not write down their ports within 15 seconds, and
        a busy machine takes longer to start them: they are written down for them.
        """
        node_id = ray.NodeID.from_random().hex()
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in AGENT_PORTS]
            ports = {name: each.getsockname()[1] for name, each in zip(AGENT_PORTS, listeners, strict=True)}

        def write_down() -> None:
            sessions = wait_until(lambda: list(Path(self._folder).glob("session_2*")), "the session", 600)
            for name, port in ports.items():
                persist_port(str(sessions[0]), node_id, name, port)

        threading.Thread(target=write_down, daemon=True).start()
        variables = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id} | options.pop("env_vars", {})
        return {"object_store_memory": STORE_BYTES, "env_vars": variables} | ports | options


@pytest.fixture
def cluster():
    """A cluster without nodes yet."""
    with contextlib.ExitStack() as stack:
        started = TestCluster()
        stack.callback(started.shut_down)
        yield started
