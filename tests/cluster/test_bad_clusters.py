"""What a user can get wrong about a cluster: one sentence each."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_put

import dreamer_hf
from computed_source import ComputedSource
from dreamer_hf import __version__
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import RayWorkers
from dreamer_hf.cluster.node_checks import check_nodes, nodes_with_cores
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.output_folder import output_folder
from waiting import wait_until

pytestmark = pytest.mark.cluster
PACKAGE = Path(dreamer_hf.__file__).parent


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("auto", "there is no Ray cluster on this machine: start one with `ray start --head`"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        ("here", "expected auto, local or HOST:PORT for --ray, got 'here'"),
        ("ray://head:10001", "no ray:// address: run the command on a node of the cluster"),
    ],
)
def test_no_such_cluster(address, sentence, tmp_path):
    refuses(address, sentence, tmp_path)


@pytest.mark.parametrize("greeting", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b""])
def test_something_else_answers(greeting, tmp_path):
    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        refuses(
            address, f"what answers at {address} is not a Ray cluster: give the address of its head node", tmp_path
        )


def refuses(address, sentence, tmp_path) -> None:
    command = [sys.executable, "-m", "dreamer_hf", "convert", "video", "--video_dir", tmp_path, "--output_dir"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*command, tmp_path / "out", "--ray", address], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_node_with_another_version_or_without_an_extra(cluster, tmp_path):
    other = tmp_path / "other" / "dreamer_hf"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find, gone = importlib.util.find_spec, ('datasets', 's3fs')\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in gone else find(name, *rest)\n"
    )
    cluster.add_node(env_vars={"PYTHONPATH": str(other.parent)})
    ours = f"dreamer_hf {__version__} on Python {platform.python_version()}"
    sentence = rf"runs dreamer_hf 0\.0\.9 on Python .*, this process {ours}: install the same versions everywhere"
    with connected(cluster.address), pytest.raises(ValueError, match=sentence):
        check_nodes(nodes_with_cores(), ())
    cluster.kill_node(cluster.nodes[0])
    cluster.add_node(env_vars={"PYTHONPATH": os.pathsep.join([str(tmp_path / "without"), os.environ["PYTHONPATH"]])})
    with connected(cluster.address):
        wait_until(lambda: len(nodes_with_cores()) == 1, "the first node to be gone")
        check_nodes(nodes_with_cores(), ("h5py",))
        with pytest.raises(
            ValueError, match=r"lacks datasets, which this work needs: pip install 'dreamer_hf\[table\]'"
        ):
            check_nodes(nodes_with_cores(), ("h5py", "datasets"))
        with pytest.raises(ValueError, match="lacks s3fs, which this work needs: pip install s3fs there"):
            check_nodes(nodes_with_cores(), output_folder("s3://bucket/data").modules)


def test_a_cluster_of_another_python(cluster):
    """The cluster says that it runs another Python, as one that was started with it says."""
    with connected(cluster.address):
        theirs = json.dumps({"ray_version": ray.__version__, "python_version": "3.11.99", "ray_init_cluster": False})
        _internal_kv_put("CLUSTER_METADATA", theirs, namespace="cluster")
    ours = f"this process Ray {ray.__version__} and Python {platform.python_version()}"
    both = rf"runs Ray {ray.__version__} and Python 3\.11\.99, {ours}"
    with pytest.raises(ValueError, match=f"{both}: install the same versions everywhere"), connected(cluster.address):
        pass
    assert not ray.is_initialized()


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode != 0,
    reason="needs the right to make a mount namespace",
)
def test_an_output_folder_that_nodes_do_not_share(cluster, tmp_path):
    """A node in a separate mount namespace sees an empty disk where this process sees the folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    options = cluster.node_options()
    variables = os.environ | options.pop("env_vars")
    options["dashboard_agent_grpc_port"] = options.pop("metrics_agent_port")
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    ray_start = (
        f"{Path(sys.executable).with_name('ray')} start --address {cluster.address} --block --num-cpus 1 {flags}"
    )
    join = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {tmp_path} && exec {ray_start}"]
    node = subprocess.Popen(join, stdout=subprocess.DEVNULL, env=variables)
    try:
        with connected(cluster.address):
            wait_until(nodes_with_cores, "the node", 600)
            with pytest.raises(ValueError, match=rf"does not share {folder} with this machine"):
                convert(ComputedSource(4), folder, ConversionOptions(), workers=RayWorkers())
        assert [path.name for path in folder.iterdir()] == ["conversion.json"]
    finally:
        node.terminate()
        node.wait()


def test_what_a_worker_raises_names_its_node(cluster, tmp_path):
    cluster.add_node()
    with connected(cluster.address):
        source = ComputedSource(4, size=-1)
        with pytest.raises(ValueError, match=r"^on node .*: negative dimensions are not allowed"):
            convert(source, tmp_path / "out", ConversionOptions(), workers=RayWorkers())
        assert ray.is_initialized()
