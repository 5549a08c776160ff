"""`dreamer serve --ray`: a proxy in this process, and engines on the nodes of a cluster."""

from ..serve.connections import limit_logs, raise_file_limit
from ..serve.serve_options import ServeOptions
from ..serve.server import limited_server, listen, server_url, warn_of_strangers
from .connection import connected
from .fleet import Fleet
from .node_checks import check_nodes, nodes_with_cores
from .proxy import Proxy, make_proxy_app

SERVER_MODULES = ("starlette", "uvicorn", "websockets", "prometheus_client", "h11", "PIL")
ENGINE_MODULES = {"torch": ("torch", "transformers"), "onnx": ("onnxruntime",)}


def serve_on_cluster(options: ServeOptions) -> None:
    """Serve a world from the cluster `options.ray`, until the process is interrupted.

    Raises:
        ValueError, OSError: there is no such cluster, or the options ask for something that cannot be done.
    """
    options.check()
    raise_file_limit()
    with listen(options) as listener, connected(options.ray):
        nodes = nodes_with_cores()
        check_nodes(nodes, SERVER_MODULES + ENGINE_MODULES.get(options.engine, ()))
        number = options.engines or default_engines(nodes, options)
        fleet = Fleet(options, number, give_up=lambda: setattr(server, "should_exit", True))
        server = limited_server(make_proxy_app(Proxy(fleet, options)), options)
        limit_logs()
        warn_of_strangers(options)
        print(f"Engines that are starting: {number}; nodes: {len(nodes)}.", flush=True)
        print(f"Serving {options.model} at {server_url(listener, options)} (Ctrl-C to stop)", flush=True)
        server.run(sockets=[listener])
        if fleet.failure and not fleet.has_served:
            raise ValueError(f"no engine can be started: {fleet.failure}")


def default_engines(nodes: list[dict], options: ServeOptions) -> int:
    """Return one for each GPU of the cluster, or one for each node with cores if there is none."""
    num_gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
    return num_gpus if num_gpus and options.device != "cpu" else max(1, len(nodes))


__all__ = ["default_engines", "serve_on_cluster"]
