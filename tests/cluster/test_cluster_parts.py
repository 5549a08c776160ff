"""The parts of the cluster room that need no cluster."""

import asyncio
import json

import pytest

from dreamer_hf.cluster import player_relay
from dreamer_hf.cluster.player_relay import Outbox
from dreamer_hf.cluster.summed_metrics import add_metrics, counters_only, read_metrics, write_metrics
from dreamer_hf.cluster.worker_pool import PoolStatus
from dreamer_hf.serve.serve_options import ServeOptions
from dreamer_hf.serve.server_metrics import ServerMetrics


def counted(frames: int, players: int) -> str:
    metrics = ServerMetrics()
    metrics.frames.inc(frames)
    metrics.sessions.labels("player").set(players)
    metrics.refused.labels('"why"\n').inc(2)
    metrics.step_seconds.observe(0.03)
    return metrics.text().decode()


def test_metrics_of_engines_are_summed_and_stay_readable():
    parts = [read_metrics(counted(10, 2)), read_metrics(counted(5, 1))]
    lines = write_metrics(add_metrics(parts)).splitlines()
    assert "dreamer_frames_total 15.0" in lines and 'dreamer_sessions{kind="player"} 3.0' in lines
    assert "# TYPE dreamer_frames_total counter" in lines and "dreamer_step_seconds_count 2.0" in lines
    assert 'dreamer_step_seconds_bucket{le="0.05"} 2.0' in lines
    assert not any(line.startswith("process_start_time_seconds") for line in lines)
    assert read_metrics("\n".join(lines) + "\n") == add_metrics(parts), "what was written is read the same"


def test_what_a_lost_engine_counted_stays():
    rest = add_metrics([counters_only(read_metrics(counted(10, 2))), read_metrics(counted(5, 1))])
    lines = write_metrics(rest).splitlines()
    assert "dreamer_frames_total 15.0" in lines and 'dreamer_sessions{kind="player"} 1.0' in lines


class Client:
    """A client's end of a WebSocket that takes what is sent once `reads` is set."""

    def __init__(self):
        self.received, self.reads = [], asyncio.Event()

    async def send_text(self, item):
        await self.reads.wait()
        self.received.append(item)

    send_bytes = send_text


def test_a_stuck_client_gets_all_messages_and_the_latest_frame(monkeypatch):
    monkeypatch.setattr(player_relay, "STUCK_SECONDS", 0.05)

    async def run():
        client, skipped = Client(), []
        outbox = Outbox(skipped.append)
        sending = asyncio.create_task(outbox.send_all(client))
        outbox.add(b"frame 1")
        await asyncio.sleep(0.1)
        for item in (b"frame 2", json.dumps({"type": "paused"}), b"frame 3", b"frame 4"):
            outbox.add(item)
        client.reads.set()
        await asyncio.sleep(0.01)
        sending.cancel()
        return client.received, skipped

    received, skipped = asyncio.run(run())
    assert received == [b"frame 1", '{"type": "paused"}', b"frame 4"] and sum(skipped) == 2


def test_a_client_that_reads_loses_nothing():
    async def run():
        client, skipped = Client(), []
        outbox = Outbox(skipped.append)
        client.reads.set()
        sending = asyncio.create_task(outbox.send_all(client))
        for number in range(100):
            outbox.add(b"%d" % number)
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        sending.cancel()
        return client.received, skipped

    assert asyncio.run(run()) == ([b"%d" % number for number in range(100)], [])


def test_the_progress_names_nodes_and_retries():
    assert str(PoolStatus(workers=1, nodes=1)) == "1 node, 1 worker"
    assert str(PoolStatus(workers=8, nodes=2, retries=1)) == "2 nodes, 8 workers, 1 retry"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engines": 0}, "expected a positive int for --engines, got 0"),
        ({"drain_seconds": -1}, "expected a positive number for --drain_seconds, got -1"),
    ],
)
def test_impossible_fleets(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ServeOptions(**options).check()
