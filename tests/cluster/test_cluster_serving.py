"""Serving from real clusters: sessions stay on their engines, and what dies costs its own players one sentence."""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from dreamer_hf.cluster.player_relay import ENGINE_DIED, ENGINE_REMOVED
from dreamer_hf.onnx.manifest import MANIFEST_NAME
from dreamer_hf.worlds import resolve_model
from waiting import TIMEOUT, wait_until

sys.path.append(str(Path(__file__).parents[1] / "serve"))
from serving import MeasuringPlayer, next_frame, next_message, send

pytestmark = pytest.mark.cluster
START_SECONDS = 600
"""How long several engines may take to start at the same time on a busy machine."""


class ServedCluster:
    """A server process with its proxy, and how to reach it."""

    def __init__(self, address: str, model, **options):
        flags = [item for name, value in options.items() for item in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "dreamer_hf", "serve", "--ray", address, "--model", str(model)]
        command += ["--port", "0", "--engine", "onnx", "--threads", "1", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        self.port = self._read_port()

    def _read_port(self) -> int:
        for line in self.process.stdout:
            if found := re.search(r" at http://127.0.0.1:(\d+)/", line):
                return int(found[1])
        raise AssertionError("the server did not start")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=TIMEOUT) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def engines(self, state="serving") -> list[dict]:
        return [engine for engine in self.ask("GET", "/engines")[1]["engines"] if engine["state"] == state]

    def wait_for_engines(self, number: int) -> None:
        wait_until(lambda: len(self.engines()) == number, f"{number} engines", START_SECONDS)

    def play(self, query="", **options):
        return connect(f"ws://127.0.0.1:{self.port}/play{query}", open_timeout=TIMEOUT, close_timeout=1, **options)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The exported world, so that engines start without PyTorch; and slow, so that a busy machine keeps up."""
    folder = tmp_path_factory.mktemp("served") / "world"
    shutil.copytree(Path(resolve_model("pusht-tiny")) / "onnx", folder)
    manifest = folder / MANIFEST_NAME
    manifest.write_text(re.sub(r'"fps": [\d.]+', '"fps": 2.0', manifest.read_text()))
    return folder


@pytest.fixture
def serve(cluster, model):
    with contextlib.ExitStack() as stack:

        def start(**options) -> ServedCluster:
            served = ServedCluster(cluster.address, model, **options)
            stack.callback(served.stop)
            served.wait_for_engines(options["engines"])
            return served

        yield start


def engine_of(session: str) -> str:
    return session.partition(".")[0]


def test_players_policies_and_operators(cluster, serve):
    """Sessions are spread and stay; metrics are summed; engines are added, drained, and killed while people play."""
    for _ in range(3):
        cluster.add_node()
    served = serve(engines=2, drain_seconds=2)
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(served.play(f"?seed={seed}")) for seed in (1, 2))
        names = [engine_of(next_message(each, "hello")["session"]) for each in (first, second)]
        assert set(names) == {engine["name"] for engine in served.engines()}, "the second goes to the emptier engine"

        status, started = served.ask("POST", "/api/sessions", {"start": 0, "seed": 5})
        assert status == 201
        for step in (1, 2, 3):
            status, answer = served.ask("POST", f"/api/sessions/{started['session']}/step", {"action": [100, 100]})
            assert (status, answer["step"], answer["seed"]) == (200, step, 5)
        next_frame(first, lambda header: header["step"] >= 2)
        counted = served.metrics()
        assert counted['dreamer_sessions{kind="player"}'] == 2 and counted['dreamer_sessions{kind="policy"}'] == 1
        assert counted['dreamer_sessions_opened_total{kind="player"}'] == 2
        assert counted['dreamer_engines{state="serving"}'] == 2 and counted["dreamer_frames_total"] >= 5
        assert served.ask("DELETE", f"/api/sessions/{started['session']}")[0] == 204

        watcher = stack.enter_context(MeasuringPlayer(served))
        assert served.ask("POST", "/engines", {"engines": 3})[0] == 200
        served.wait_for_engines(3)

        # The engine of `second` is drained: two seconds later its players continue elsewhere.
        assert served.ask("DELETE", f"/engines/{names[1]}")[0] == 204
        assert next_message(second, "error")["error"] == ENGINE_REMOVED
        moved = engine_of(next_message(second, "hello")["session"])
        assert moved != names[1] and next_frame(second)[0]["seed"] == 2
        assert names[1] not in [engine["name"] for engine in served.engines()]
        send(second, type="action", action=[10, 20], seq=9)
        assert next_frame(second, lambda header: header["seq"] == 9)[0]["action"] == [10, 20]
        watcher.wait_for_frames(3)

    status, answer = served.ask("POST", "/engines", {"engines": -1})
    assert status == 400 and "engines must be an integer" in answer["error"]
    assert served.ask("DELETE", "/engines/e99")[0] == 404
    assert served.ask("POST", "/api/sessions/e99.x/step", {"action": [0, 0]})[0] == 404


def test_a_node_that_dies_costs_its_own_players_a_sentence(cluster, serve):
    """One of three nodes is killed: its player continues elsewhere, and those on the other two lose no frame."""
    nodes = {node.node_id: node for node in (cluster.add_node() for _ in range(3))}
    served = serve(engines=3)
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(MeasuringPlayer(served)) for _ in range(2)]
        engines = served.engines()
        busy = {engine["name"] for engine in engines if engine["sessions"]}
        victim = next(engine for engine in engines if engine["name"] not in busy)
        assert len({engine["node"] for engine in engines}) == 3 and len(busy) == 2
        unlucky = stack.enter_context(served.play("?seed=3"))
        assert engine_of(next_message(unlucky, "hello")["session"]) == victim["name"]
        next_frame(unlucky, lambda header: header["step"] >= 2)
        before = served.metrics()["dreamer_frames_total"]
        policies = [served.ask("POST", "/api/sessions", {})[1]["session"] for _ in range(3)]
        lost = next(session for session in policies if engine_of(session) == victim["name"])
        cluster.kill_node(nodes[victim["node"]])

        assert next_message(unlucky, "error")["error"] == ENGINE_DIED
        assert engine_of(next_message(unlucky, "hello")["session"]) in busy
        assert next_frame(unlucky)[0]["seed"] == 3
        for watcher in watchers:
            watcher.wait_for_frames(4)
        counted = served.metrics()
        # The watchers' dreams continued from frame to frame; an engine leaves frames out on a busy machine.
        gaps = [late - early - 1 for each in watchers for early, late in itertools.pairwise(each.steps)]
        assert [watcher.failure for watcher in watchers] == [None, None] and min(gaps) >= 0
        assert sum(gaps) <= counted["dreamer_frames_skipped_total"] and counted["dreamer_dreams_moved_total"] == 1
        assert counted["dreamer_engines_lost"] == 1 and counted["dreamer_frames_total"] >= before
        status, answer = served.ask("POST", f"/api/sessions/{lost}/step", {"action": [0, 0]})
        assert status == 404 and "start another session" in answer["error"]
        for session in set(policies) - {lost}:
            assert served.ask("POST", f"/api/sessions/{session}/step", {"action": [0, 0]})[0] == 200

        cluster.add_node()
        served.wait_for_engines(3)
        for watcher in watchers:
            watcher.wait_for_frames(2)
        assert [watcher.failure for watcher in watchers] == [None, None]
