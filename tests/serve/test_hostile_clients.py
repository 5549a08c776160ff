"""Clients that attack, flood or vanish: what they can do to the server and to other players, with real sockets."""

import asyncio
import contextlib
import http.client
import logging
import socket
import struct
import threading
import time
import urllib.request

import pytest
from serving import (
    TIMEOUT,
    MeasuringPlayer,
    connect_raw,
    is_closed_by_server,
    next_frame,
    next_message,
    wait_until,
)
from websockets.asyncio.client import connect

from dreamer_hf.serve import connections
from dreamer_hf.serve.connections import LogLimit, connection_limit
from tiny import make_world

HALF_HEAD = b"GET / HT"
HALF_BODY = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = (
    b"GET /play HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
def close_later():
    """Collects connections that stay open until the test ends."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def reset_connection(connection):
    """Close a connection without a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Requests that never become complete


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [b"", HALF_HEAD, HALF_BODY, HEALTH + HALF_HEAD], ids=["silence", "head", "body", "2nd"]
)
def test_a_request_that_stays_incomplete_is_closed(serve, close_later, text):
    served = serve(request_seconds=0.5)
    connection = close_later(connect_raw(served, text))
    started = time.monotonic()
    wait_until(lambda: is_closed_by_server(connection), "the connection to be closed")
    assert time.monotonic() - started < 30 and served.sessions == 0


@pytest.mark.slow
def test_sending_a_byte_now_and_then_does_not_extend_the_deadline(serve, close_later):
    served = serve(request_seconds=1)
    connection = close_later(connect_raw(served))
    with pytest.raises(ConnectionError):
        for byte in HALF_BODY * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)


@pytest.mark.slow
def test_an_idle_connection_between_requests_stays_open(serve, close_later):
    served = serve(request_seconds=0.3)
    connection = close_later(contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)))
    connection.connect()
    for _ in range(2):
        connection.sock.sendall(HEALTH)
        response = http.client.HTTPResponse(connection.sock)
        response.begin()
        assert response.status == 200 and response.read()
        time.sleep(1)


def test_a_client_that_does_not_read_its_answers_is_closed(serve, close_later):
    served = serve(request_seconds=0.5, send_buffer=4096)
    connection = close_later(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", served.port))
    connection.sendall(b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
    wait_until(lambda: not served.connections, "the connection to be closed")


def test_requests_that_are_sent_without_waiting_for_answers_do_not_fill_the_memory(served, close_later):
    connection = close_later(connect_raw(served))
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            connection.sendall(HEALTH * 1000)


@pytest.mark.slow
def test_200_half_open_connections_take_nothing_from_a_player(serve, close_later):
    served = serve(make_world(fps=10), request_seconds=2)
    with MeasuringPlayer(served) as player:
        attackers = [close_later(connect_raw(served, (HALF_HEAD, HALF_BODY)[n % 2])) for n in range(200)]
        player.wait_for_frames(10)
        assert served.ask("GET", "/health")[0] == 200
        wait_until(lambda: all(map(is_closed_by_server, attackers)), "the attackers to be closed")
        player.check()


# Too many connections


def test_new_clients_get_in_while_silent_connections_fill_the_server(serve, close_later):
    served = serve(max_connections=20)
    with MeasuringPlayer(served) as player:
        for _ in range(3):
            for _ in range(25):
                close_later(connect_raw(served, HALF_HEAD))
            assert served.ask("GET", "/health")[0] == 200
        with served.play() as newcomer:
            next_frame(newcomer)
        player.wait_for_frames(5)
        player.check()


def test_a_server_full_of_players_turns_further_connections_away(serve):
    served = serve(max_connections=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            next_frame(stack.enter_context(served.play()))
        assert served.request("GET", "/health")[0] == 503
    wait_until(lambda: served.sessions == 0, "the places to be free")
    assert served.ask("GET", "/health")[0] == 200


def test_the_cap_on_connections_leaves_open_files_for_the_rest(monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda kind: (128, 128))
    assert connection_limit(512) == 128 - connections.RESERVED_FILES and connection_limit(10) == 10


@pytest.mark.slow
def test_64_players_play_while_20_others_vanish(serve):
    served = serve(max_sessions=96)
    num_frames = [0] * 64
    url = f"ws://127.0.0.1:{served.port}/play"

    async def play(number):
        async with connect(url, open_timeout=TIMEOUT) as player:
            async for data in player:
                num_frames[number] += isinstance(data, bytes)

    async def vanish():
        player = await connect(url, open_timeout=TIMEOUT)
        await player.recv()
        player.transport.abort()

    async def frames_for_everybody(count):
        goals = [number + count for number in num_frames]
        while any(number < goal for number, goal in zip(num_frames, goals)):
            await asyncio.sleep(0.05)

    async def crowd():
        players = [asyncio.create_task(play(number)) for number in range(64)]
        await frames_for_everybody(1)
        await asyncio.gather(*[vanish() for _ in range(20)])
        await frames_for_everybody(5)
        while served.sessions > 64:
            await asyncio.sleep(0.05)
        assert served.sessions == 64 and not any(player.done() for player in players)
        for player in players:
            player.cancel()
        await asyncio.gather(*players, return_exceptions=True)

    asyncio.run(asyncio.wait_for(crowd(), 2 * TIMEOUT))
    wait_until(lambda: served.sessions == 0, "the places to be free")


@pytest.mark.slow
def test_clients_that_keep_starting_dreams_do_not_stop_a_player(serve, monkeypatch):
    served = serve(make_world(fps=10))
    dreams, begin = served.service.dreams, served.service.dreams.begin

    def slow_begin(*arguments):
        time.sleep(0.1)
        return begin(*arguments)

    with MeasuringPlayer(served) as player:
        monkeypatch.setattr(dreams, "begin", slow_begin)
        sessions = [served.ask("POST", "/api/sessions", {})[1]["session"] for _ in range(8)]
        stopping = threading.Event()

        def reset(session):
            while not stopping.is_set():
                served.ask("POST", f"/api/sessions/{session}/reset", {})

        threads = [threading.Thread(target=reset, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        first = len(player.steps)
        player.wait_for_frames(10)
        stopping.set()
        for thread in threads:
            thread.join(TIMEOUT)
        # Eight starts between two frames would take 0.8 s.
        assert player.times[first + 9] - player.times[first] < 9 * 0.5


# Clients that leave


def test_a_client_that_leaves_in_the_middle_of_a_body_logs_one_line(served, caplog):
    reset_connection(connect_raw(served, HALF_BODY))
    wait_until(lambda: caplog.records, "the log")
    time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records] == ["A client left while it was sending a request."]
    assert "Traceback" not in caplog.text


def test_a_session_whose_start_was_never_delivered_is_freed(serve):
    """Nobody knows its name, so nobody could use or end it before it has been idle for minutes."""
    served = serve(max_sessions=32)
    started = served.service.metrics.opened.labels("policy")._value
    body = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(20):
        connect_raw(served, body).close()
    wait_until(lambda: started.get() == 20, "the sessions")
    wait_until(lambda: served.sessions == 0, "the places to be free")


def test_pings_whose_answers_are_not_read_do_not_fill_the_memory(served, close_later, monkeypatch):
    monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 2**17)
    connection = close_later(connect_raw(served, UPGRADE))
    wait_until(lambda: served.sessions == 1, "the session")
    ping = b"\x89\xfd" + b"\0" * 4 + b"x" * 125
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            connection.sendall(ping * 500)
    wait_until(lambda: served.sessions == 0, "the place to be free")


# Requests that pretend


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_with_two_lengths_is_refused_and_its_rest_is_not_read(served, close_later, framing):
    hidden = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    text = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\n" + framing + hidden
    connection = close_later(connect_raw(served, text))
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(2**16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1
    assert served.service.metrics.opened.labels("policy")._value.get() == 0


def status_of(served, method, path, **headers):
    return served.request(method, path, *([b"{}"] if method == "POST" else []), **headers)[0]


def play_with_host(served, host, origin=None):
    with contextlib.closing(socket.create_connection(("127.0.0.1", served.port))) as connection:
        lines = UPGRADE.replace(b"localhost", host.encode())
        if origin is not None:
            lines = lines.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode())
        connection.sendall(lines)
        return int(connection.recv(2**16).split()[1])


PAGES = [("GET", "/"), ("GET", "/health"), ("GET", "/api/world"), ("GET", "/metrics"), ("POST", "/api/sessions")]


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:80", "localhost.evil.com", "127.0.0.1.evil.com", "[::2]:1", "x]["]
)
def test_a_page_whose_name_resolves_to_this_machine_is_refused(served, host):
    """DNS rebinding: Host and Origin agree, and both belong to the attacker."""
    for method, path in PAGES:
        for headers in ({}, {"Origin": f"http://{host}"}):
            assert status_of(served, method, path, Host=host, **headers) == 403
    assert play_with_host(served, host, f"http://{host}") == 403 and served.sessions == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]", "[::1]:8000"])
def test_the_machines_own_names_are_accepted(served, host):
    for method, path in PAGES:
        assert status_of(served, method, path, Host=host) in (200, 201)
    assert play_with_host(served, host, f"http://{host}") == 101


def test_other_names_have_to_be_allowed(serve):
    served = serve(allowed_host=("Play.Example",))
    assert status_of(served, "GET", "/api/world", Host="play.example:80") == 200
    assert status_of(served, "GET", "/api/world", Host="localhost") == 200
    assert status_of(served, "GET", "/api/world", Host="evil.com") == 403


def test_with_a_token_any_name_will_do_unless_names_are_allowed(serve):
    served = serve(token="secret")
    headers = {"Host": "play.example", "Authorization": "Bearer secret"}
    assert status_of(served, "GET", "/api/world", **headers) == 200
    served = serve(token="secret", allowed_host=("other.example",))
    assert status_of(served, "GET", "/api/world", **headers) == 403


@pytest.mark.parametrize("origin", ["https://{0}", "ftp://{0}", "null", "http://{0}.evil.com", "{0}"])
def test_the_origin_has_to_be_this_server_scheme_included(served, origin):
    host = f"127.0.0.1:{served.port}"
    assert status_of(served, "POST", "/api/sessions", Origin=origin.format(host)) == 403
    assert play_with_host(served, host, origin.format(host)) == 101  # a page is given the reason over the WebSocket
    wait_until(lambda: served.sessions == 0, "the refusal")
    assert status_of(served, "POST", "/api/sessions", Origin=f"http://{host}") == 201


def test_behind_a_proxy_with_tls_the_origin_is_https(served):
    headers = {"Host": "localhost", "Origin": "https://localhost", "X-Forwarded-Proto": "https"}
    assert status_of(served, "POST", "/api/sessions", **headers) == 201
    assert status_of(served, "POST", "/api/sessions", **headers | {"Origin": "http://localhost"}) == 403


# Logs and pages


def test_one_place_in_the_code_logs_once_in_a_while(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: clock[0])
    limit = LogLimit()

    def passes(line):
        record = logging.LogRecord("name", logging.ERROR, "file.py", line, "it failed", None, None)
        return limit.filter(record) and record.getMessage()

    assert passes(1) == passes(2) == "it failed"
    assert [passes(1) for _ in range(1000)] == [False] * 1000
    clock[0] += connections.LOG_SECONDS
    assert passes(1) == "it failed (1000 more like this were left out)" and passes(2) == "it failed"


def test_the_world_has_a_name_and_not_a_path(serve, tmp_path, monkeypatch):
    (tmp_path / "secret" / "my-world").mkdir(parents=True)
    served = serve(model=str(tmp_path / "secret" / "my-world"))
    for path in ("/", "/api/world", "/metrics", "/health"):
        assert b"secret" not in served.request("GET", path)[1]
    with served.play() as player:
        assert next_message(player, "hello")["model"] == "my-world"
    monkeypatch.chdir(tmp_path / "secret" / "my-world")
    assert serve(model=".").ask("GET", "/api/world")[1]["model"] == "my-world"
    assert serve(model="me/my-world").ask("GET", "/api/world")[1]["model"] == "me/my-world"


def test_pages_carry_security_headers(served):
    with urllib.request.urlopen(served.url) as response:
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Referrer-Policy"] == "no-referrer"
