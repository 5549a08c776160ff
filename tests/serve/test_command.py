"""`dreamer serve` as a user runs it."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from serving import MeasuringPlayer, Served, connect_raw, next_frame

from dreamer_hf.cli import main
from tiny import save_world


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory, world):
    return save_world(tmp_path_factory.mktemp("world"), world)


@contextlib.contextmanager
def running_command(world_folder, open_files=None):
    """Run the command; gives the process and the URL that it prints. open_files: limit of its open files."""

    def before_start():
        # A shell that starts the tests in the background has them ignore SIGINT, and their children with them.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))

    command = [sys.executable, "-m", "dreamer_hf.serve", "--model", str(world_folder), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=before_start,
    )
    try:
        # Lines about the engine and its threads come first.
        line = next((line for line in process.stdout if line.startswith("Serving")), "")
        found = re.fullmatch(rf"Serving {world_folder} at (http://127\.0\.0\.1:\d+/) \(Ctrl-C to stop\)\n", line)
        assert found, process.communicate(timeout=60)
        yield process, found[1]
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_url_serves_and_stops(world_folder, ending):
    with running_command(world_folder) as (process, url):
        with urllib.request.urlopen(url + "health", timeout=60) as response:
            assert json.load(response) == {"status": "ok"}
        with urllib.request.urlopen(url, timeout=60) as response:
            page = response.read().decode()
        for name in re.findall(r"static/[\w.]+", page):
            with urllib.request.urlopen(url + name, timeout=60) as response:
                assert response.status == 200
        process.send_signal(ending)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -ending) and "Traceback" not in errors, errors


@pytest.mark.slow
def test_half_open_connections_do_not_exhaust_the_open_files_or_fill_the_log(world_folder):
    with running_command(world_folder, open_files=128) as (process, url):
        served = Served(None, int(url.rsplit(":")[-1].strip("/")), None)
        with contextlib.ExitStack() as attackers, MeasuringPlayer(served) as player:
            for _ in range(200):
                attackers.enter_context(connect_raw(served, b"GET / HT"))
            player.wait_for_frames(40)
            assert served.ask("GET", "/health")[0] == 200
            with served.play() as newcomer:
                next_frame(newcomer)
            player.check()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert len(errors) < 5000, errors[:5000]


@pytest.fixture
def run_here(capsys, world_folder):
    """Run the command in this process until it refuses; return its exit status and errors."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main("serve", arguments=["--model", str(world_folder), *map(str, arguments)])
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("--port, got 70000", ("--port", 70000)),
        ("--max_sessions, got 0", ("--max_sessions", 0)),
        ("--idle_seconds, got nan", ("--idle_seconds", "nan")),
        ("--max_recording_seconds, got inf", ("--max_recording_seconds", "inf")),
        ("--jpeg_quality, got 0", ("--jpeg_quality", 0)),
        ("token is empty", ("--token", "")),
        ("cannot read a token from --token_file /nowhere", ("--token_file", "/nowhere")),
        ("cannot listen on no.such.host.invalid", ("--host", "no.such.host.invalid")),
        ("no start frames at", ("--port", 0, "--start", "/nowhere.png")),
        ("power of two", ("--port", 0, "--num_inference_steps", 3)),
        ("cannot load a world", ("--port", 0, "--model", "/nowhere")),
    ],
)
def test_bad_options_get_one_sentence_and_status_2(run_here, sentence, arguments):
    status, errors = run_here(*arguments)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 1 and sentence in lines[0], errors


def test_a_port_that_is_taken_is_reported_before_a_world_is_loaded(run_here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, errors = run_here("--port", taken.getsockname()[1], "--model", "/nowhere")
    assert status == 2 and "choose others" in errors
