"""The WebSocket as a browser uses it, and as no client should."""

import contextlib
import io
import json
import socket as sockets
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from serving import TIMEOUT, next_frame, next_message, send, wait_until
from websockets.exceptions import ConnectionClosed

from tiny import make_world


def decode(image):
    return np.asarray(Image.open(io.BytesIO(image)))


def close_code(socket):
    """Read until the server closes; return the code and the last message."""
    last = {}
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            data = socket.recv(timeout=TIMEOUT)
            last = json.loads(data) if isinstance(data, str) else last
    return closed.value.rcvd.code, last.get("error")


def test_input_moves_the_action(served):
    with served.play("?start=1&seed=4&format=png") as socket:
        hello = next_message(socket, "hello")
        assert hello["fps"] == 20 and hello["actions"]["keys"] == [["left", "right"], ["up", "down"]]
        header, _ = next_frame(socket)
        assert (header["start"], header["seed"]) == (1, 4)
        before = header["action"]
        send(socket, type="input", axes=[1, 0], seq=7)
        header, image = next_frame(socket, lambda header: header["seq"] == 7)
        assert header["action"][0] > before[0] and header["action"][1] == pytest.approx(before[1])
        assert decode(image).shape == (16, 16, 3)
        send(socket, type="input", axes=[1, -1], pointer=True, seq=8)
        assert next_frame(socket, lambda header: header["seq"] == 8)[0]["action"] == [512, 10]
        send(socket, type="input", axes=[], seq=9)  # the stick takes over where the pointer was
        assert next_frame(socket, lambda header: header["seq"] == 9)[0]["action"] == [512, 10]
        send(socket, type="action", action=[100, 200], seq=10)
        assert next_frame(socket, lambda header: header["seq"] == 10)[0]["action"] == [100, 200]
    wait_until(lambda: served.sessions == 0, "the place to be free")


def test_jpeg_is_the_default(served):
    with served.play() as socket:
        assert Image.open(io.BytesIO(next_frame(socket)[1])).format == "JPEG"


def test_pause_step_reset_and_continue(served, starts):
    with served.play("?start=0&format=png") as socket:
        send(socket, type="pause", paused=True)
        assert next_message(socket, "paused")["paused"]
        send(socket, type="pause")  # frames that were on their way have arrived by the second answer
        next_message(socket, "paused")
        send(socket, type="reset", start=1, seed=9)
        header, image = next_frame(socket, lambda header: header["seed"] == 9)
        assert (header["step"], header["start"]) == (0, 1)
        np.testing.assert_array_equal(decode(image), starts.pixel_values_videos[1, -1].permute(1, 2, 0))
        for step in (1, 2):
            send(socket, type="step")
            assert next_frame(socket)[0]["step"] == step
        with pytest.raises(TimeoutError):
            while True:
                assert isinstance(socket.recv(timeout=0.3), str)  # no frame comes while it is paused
        send(socket, type="pause", paused=False)
        assert next_frame(socket)[0]["step"] == 3


def test_others_continue_while_one_is_paused(served):
    with served.play() as waiting, served.play() as playing:
        send(waiting, type="pause", paused=True)
        next_message(waiting, "paused")
        last = next_frame(playing)[0]["step"]
        next_frame(playing, lambda header: header["step"] >= last + 10)
        send(waiting, type="step")
        assert next_frame(waiting, lambda header: header["step"] > 0)[0]["step"] < last + 10


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("nonsense", "not JSON"),
        (b"\x00\xff", "not JSON"),
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"type": "dance"}', "unknown message type 'dance'"),
        ('{"type": ["input"]}', "unknown message type"),
        ('{"type": "input"}', "axes must be a list of numbers"),
        ('{"type": "input", "axes": [1, 2, 3]}', "takes 2 at most"),
        ('{"type": "input", "axes": [NaN, 0]}', "NaN is not a number"),
        ('{"type": "input", "axes": [1, 0], "seq": -1}', "seq must be an integer"),
        ('{"type": "input", "axes": [1, 0], "pointer": 1}', "pointer must be true or false"),
        ('{"type": "action", "action": [1]}', "action has 1 numbers"),
        ('{"type": "action", "action": [1, Infinity]}', "Infinity is not a number"),
        ('{"type": "reset", "start": 2}', "start must be an integer from 0 to 1"),
        ('{"type": "pause", "paused": "yes"}', "paused must be true or false"),
        ('{"type": "pause", "text": "%s"}' % ("x" * 5000), "send 4096 at most"),
    ],
)
def test_bad_messages_are_refused_and_the_session_continues(served, message, sentence):
    with served.play() as socket:
        socket.send(message)
        assert sentence in next_message(socket, "error")["error"]
        step = next_frame(socket)[0]["step"]
        next_frame(socket, lambda header: header["step"] > step + 2)


def test_a_message_that_is_far_too_long_ends_only_its_session(served):
    with served.play() as other:
        with served.play() as socket, pytest.raises(ConnectionClosed) as closed:
            socket.send("x" * 200_000)
            while True:
                socket.recv(timeout=TIMEOUT)
        assert closed.value.rcvd.code == 1009
        step = next_frame(other)[0]["step"]
        next_frame(other, lambda header: header["step"] > step + 2)
        wait_until(lambda: served.sessions == 1, "the place to be free")


def test_too_many_messages_are_dropped_and_far_too_many_end_the_session(serve):
    served = serve(max_messages_per_second=10)
    with served.play() as other, served.play() as socket:
        for _ in range(40):
            send(socket, type="input", axes=[0, 0])
        assert "more than 10 messages per second" in next_message(socket, "error")["error"]
        with contextlib.suppress(ConnectionClosed):
            for _ in range(400):
                send(socket, type="input", axes=[0, 0])
        code, message = close_code(socket)
        assert code == 4429 and "more than 10 messages" in message
        step = next_frame(other)[0]["step"]
        next_frame(other, lambda header: header["step"] > step + 2)


@pytest.mark.slow
def test_resets_are_limited(served):
    with served.play() as socket:
        for _ in range(30):
            send(socket, type="reset")
        assert "resets per second" in next_message(socket, "error")["error"]


def test_twice_as_many_players_as_places(serve):
    served = serve(max_sessions=3)
    with contextlib.ExitStack() as stack:
        players = [stack.enter_context(served.play()) for _ in range(3)]
        for player in players:
            next_frame(player)
        for _ in range(3):
            with served.play() as refused:
                code, message = close_code(refused)
                assert code == 4503 and "all 3 places are taken" in message
        for player in players:
            step = next_frame(player)[0]["step"]
            next_frame(player, lambda header, step=step: header["step"] > step + 2)
    wait_until(lambda: served.sessions == 0, "the places to be free")


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?token=secret&format=gif", {}, 4400),
        ("?token=secret&start=2", {}, 4400),
        ("?token=secret&seed=x", {}, 4400),
        ("?token=wrong", {}, 4401),
        ("", {}, 4401),
        ("?token=secret", {"Origin": "http://elsewhere.example"}, 4403),
    ],
)
def test_refused_players_get_a_reason(serve, query, headers, code):
    served = serve(token="secret")
    with served.play(query, additional_headers=headers) as socket:
        refused, message = close_code(socket)
        assert refused == code and message and served.sessions == 0


@pytest.mark.slow
def test_abrupt_disconnects_free_their_rows(served):
    with served.play() as other:
        for _ in range(3):
            socket = served.play()
            next_frame(socket)
            # With this option, closing resets the connection.
            socket.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.close()
        wait_until(lambda: served.sessions == 1, "the places to be free")
        step = next_frame(other)[0]["step"]
        next_frame(other, lambda header: header["step"] > step + 2)
        wait_until(lambda: len(served.service.engine._sessions) == 1, "the rows to be free")


@pytest.mark.slow
def test_a_client_that_answers_no_ping_loses_its_place(served):
    """As if its machine had vanished: the connection is open, and nobody answers."""
    socket = sockets.create_connection(("127.0.0.1", served.port))
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    socket.sendall(
        f"GET /play HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n".encode()
    )
    try:
        wait_until(lambda: served.sessions == 1, "the session")
        wait_until(lambda: served.sessions == 0, "the silent session to end")
    finally:
        socket.close()


@pytest.mark.slow
def test_a_slow_reader_misses_frames_and_does_not_affect_others(serve):
    served = serve(make_world(fps=500), send_buffer=4096, num_inference_steps=1)
    narrow = sockets.socket()
    narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", served.port))
    with served.play("?format=png", sock=narrow, max_queue=1) as slow:
        player = wait_until(lambda: next(iter(served.service.sessions.values()), None), "the session")
        # All buffers together hold fewer frames (of at least half a kilobyte) than this.
        wait_until(lambda: player.latest is not None and player.latest.number > 300, "full buffers")
        with served.play() as other:
            step = next_frame(other)[0]["step"]
            next_frame(other, lambda header: header["step"] > step + 20)
        latest, steps = player.latest.step, []
        while not steps or steps[-1] < latest:
            steps.append(next_frame(slow)[0]["step"])
        assert steps == sorted(set(steps)) and len(steps) < latest - steps[0]
        assert served.service.metrics.skipped._value.get() > 0


@pytest.mark.slow
def test_a_recording_can_be_downloaded_until_its_player_leaves(served):
    with served.play() as socket:
        send(socket, type="record", on=True)
        assert next_message(socket, "recording")["on"]
        step = next_frame(socket)[0]["step"]
        next_frame(socket, lambda header: header["step"] >= step + 8)
        send(socket, type="record", on=False)
        url = next_message(socket, "recording")["url"]
        status, video = served.request("GET", url)
        assert status == 200
        with av.open(io.BytesIO(video)) as container:
            stream = container.streams.video[0]
            assert sum(1 for _ in container.decode(video=0)) >= 8 and stream.average_rate == 20
        send(socket, type="record", on=True)  # the next one takes its place
        next_message(socket, "recording")
        wait_until(lambda: served.request("GET", url)[0] == 404, "the first video to be deleted")
    wait_until(lambda: not list(Path(served.service._recordings.name).iterdir()), "the videos to be deleted")
    assert served.request("GET", url)[0] == 404


@pytest.mark.slow
def test_a_recording_has_a_maximum_length(serve):
    served = serve(max_recording_seconds=0.25)  # five frames
    with served.play() as socket:
        send(socket, type="record", on=True)
        next_message(socket, "recording")
        step = next_frame(socket)[0]["step"]
        next_frame(socket, lambda header: header["step"] >= step + 10)
        send(socket, type="record", on=False)
        video = served.request("GET", next_message(socket, "recording")["url"])[1]
        with av.open(io.BytesIO(video)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5


@pytest.mark.slow
def test_a_player_who_stays_paused_loses_the_place_with_a_reason(serve):
    served = serve(idle_seconds=0.5)
    with served.play() as socket:
        send(socket, type="pause", paused=True)
        code, message = close_code(socket)
        assert code == 4500 and "was paused for 0.5 seconds" in message


def test_a_step_that_fails_ends_its_sessions_and_the_server_continues(served, monkeypatch, caplog):
    dreams = served.service.dreams
    step = dreams.step
    with served.play() as socket:
        next_frame(socket)
        monkeypatch.setattr(dreams, "step", lambda *arguments: 1 / 0)
        code, message = close_code(socket)
        assert code == 4500 and "the server failed" in message
    session = served.ask("POST", "/api/sessions", {})[1]["session"]
    status, answer = served.ask("POST", f"/api/sessions/{session}/step", {"action": [1, 2]})
    assert status == 500 and "the server failed" in answer["error"]
    monkeypatch.setattr(dreams, "step", step)
    with served.play() as socket:
        next_frame(socket, lambda header: header["step"] > 2)
    assert served.ask("GET", "/health")[0] == 200 and "ZeroDivisionError" in caplog.text


@pytest.mark.slow
def test_frames_are_spread_evenly(served):
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            next_frame(stack.enter_context(served.play()))

        def numbers():
            return [player.latest.number for player in served.service.sessions.values()]

        before = numbers()
        wait_until(lambda: min(map(int.__sub__, numbers(), before)) >= 20, "frames")
        gained = [now - then for now, then in zip(numbers(), before)]
        assert max(gained) - min(gained) <= 2  # they were not read at the same moment
