"""`python -m dreamer_hf.serve` as a user runs it."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial

import pytest

from dreamer_hf.cli import run_script
from dreamer_hf.serve.__main__ import main
from dreamer_hf.start_frames import save_start_frames
from tiny import make_starts


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory, world):
    folder = tmp_path_factory.mktemp("world")
    world.save_pretrained(folder)
    save_start_frames(folder, make_starts())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_url_serves_and_stops(world_folder, ending):
    command = [sys.executable, "-m", "dreamer_hf.serve", "--model", str(world_folder), "--port", "0"]
    # A shell that starts the tests in the background has them ignore SIGINT, and their children with them.
    obeys_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=obeys_interrupts
    )
    try:
        line = process.stdout.readline()
        address = re.fullmatch(rf"Serving {world_folder} at (http://127\.0\.0\.1:\d+/) \(Ctrl-C to stop\)\n", line)
        with urllib.request.urlopen(address[1] + "health", timeout=60) as response:
            assert json.load(response) == {"status": "ok"}
        with urllib.request.urlopen(address[1], timeout=60) as response:
            page = response.read().decode()
        for name in re.findall(r"static/[\w.]+", page):
            with urllib.request.urlopen(address[1] + name, timeout=60) as response:
                assert response.status == 200
        process.send_signal(ending)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (130, -ending) and "Traceback" not in errors, errors


@pytest.fixture
def run_here(monkeypatch, capsys, world_folder):
    """Run the command in this process until it refuses; return its exit status and errors."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["serve", "--model", str(world_folder), *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            run_script(main)
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
