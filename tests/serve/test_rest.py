"""The REST API as a policy uses it."""

import base64
import contextlib
import threading

import numpy as np
import pytest
import torch
from serving import next_frame, plain_rollout, wait_until


def observation_of(answer):
    observation = answer["observation"]
    return np.frombuffer(base64.b64decode(observation["data"]), np.uint8).reshape(observation["shape"])


def start(served, **request):
    status, answer = served.ask("POST", "/api/sessions", request)
    assert status == 201, answer
    return answer


@pytest.mark.parametrize("players", [0, 2])
def test_a_session_gives_the_frames_of_a_plain_rollout_and_can_be_reset(served, world, starts, players):
    with contextlib.ExitStack() as stack:
        for _ in range(players):
            next_frame(stack.enter_context(served.play()))
        check_a_session(served, world, starts)
        assert served.sessions == players


def check_a_session(served, world, starts):
    answer = start(served, start=1, seed=3)
    path = f"/api/sessions/{answer['session']}"
    np.testing.assert_array_equal(observation_of(answer), starts.pixel_values_videos[1, -1].permute(1, 2, 0))
    for repetition in range(2):
        rollout = plain_rollout(world, starts, 1, 3)
        for step in range(6):
            action = [100.0 + 40 * step, 350.0 - 30 * step]
            status, answer = served.ask("POST", f"{path}/step", {"action": action})
            assert status == 200 and answer["step"] == step + 1 and answer["action"] == action
            expected = 255 * rollout.step(torch.tensor([action])).pixel_values[0].permute(1, 2, 0)
            assert np.abs(observation_of(answer) - expected.numpy()).max() <= 0.51
        if repetition == 0:
            status, answer = served.ask("POST", f"{path}/reset", {"start": 1, "seed": 3})
            assert status == 200 and (answer["step"], answer["start"], answer["seed"]) == (0, 1, 3)
    assert served.ask("DELETE", path)[0] == 204
    assert served.ask("DELETE", path)[0] == 404


def test_actions_outside_the_range_are_clipped(served):
    path = f"/api/sessions/{start(served)['session']}/step"
    assert served.ask("POST", path, {"action": [1e9, -5]})[1]["action"] == [512, 10]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"nonsense", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"action": [1]}', "action has 1 numbers: this world takes 2 (target_x, target_y)"),
        (b'{"action": [NaN, 1]}', "NaN is not a number of JSON"),
        (b'{"action": [1e400, 1]}', "not a finite number"),
        (b'{"action": [1%s, 1]}' % (b"0" * 400), "not a finite number"),
        (b'{"action": ["1", 1]}', "must be a list of numbers"),
        (b'{"action": [true, 1]}', "must be a list of numbers"),
        (b"{}", "must be a list of numbers"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"action":' + b"[" * 2000, "not JSON"),
    ],
)
def test_bad_actions_are_refused_and_the_session_continues(served, body, sentence):
    path = f"/api/sessions/{start(served)['session']}/step"
    status, answer = served.ask("POST", path, body)
    assert status == 400 and sentence in answer["error"]
    status, answer = served.ask("POST", path, {"action": [200, 200]})
    assert status == 200 and answer["step"] == 1


@pytest.mark.parametrize(
    "request_body", [{"start": 2}, {"start": -1}, {"start": 0.5}, {"start": True}, {"seed": 2**70}]
)
def test_starts_that_do_not_exist_are_refused(served, request_body):
    status, answer = served.ask("POST", "/api/sessions", request_body)
    assert status == 400 and "an integer" in answer["error"] and served.sessions == 0


def test_long_bodies_unknown_names_and_too_many_sessions_are_refused(serve):
    served = serve(max_sessions=2, max_message_bytes=500)
    path = f"/api/sessions/{start(served)['session']}"
    start(served)
    status, answer = served.ask("POST", "/api/sessions", {})
    assert status == 503 and "all 2 places are taken" in answer["error"]
    status, answer = served.ask("POST", f"{path}/step", {"action": [1.0] * 300})
    assert status == 413 and "500 bytes at most" in answer["error"]
    assert served.ask("POST", "/api/sessions/elsewhere/step", {"action": [1, 2]})[0] == 404
    assert served.request("GET", "/api/nothing")[0] == 404
    served.ask("DELETE", path)
    start(served)


def test_simultaneous_steps_are_refused_within_a_session_and_not_across_sessions(served):
    paths = [f"/api/sessions/{start(served)['session']}/step" for _ in range(2)]
    answers = []

    def step(path):
        for _ in range(20):
            answers.append((path, *served.ask("POST", path, {"action": [100, 100]})))

    threads = [threading.Thread(target=step, args=(path,)) for path in (paths[0], paths[0], paths[1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for path, status, _ in answers if path == paths[1]} == {200}
    shared = [(status, answer) for path, status, answer in answers if path == paths[0]]
    assert all(status == 200 or "still at its last step" in answer["error"] for status, answer in shared)
    steps = [answer["step"] for status, answer in shared if status == 200]
    assert sorted(steps) == list(range(1, len(steps) + 1))


def test_a_session_that_is_ended_during_a_step_answers_and_the_server_continues(served, monkeypatch):
    path = f"/api/sessions/{start(served)['session']}"
    policy = next(iter(served.service.sessions.values()))
    step, may_continue, answers = served.service.dreams.step, threading.Event(), []

    def slow_step(*arguments):
        may_continue.wait(60)
        step(*arguments)

    monkeypatch.setattr(served.service.dreams, "step", slow_step)
    thread = threading.Thread(target=lambda: answers.append(served.ask("POST", f"{path}/step", {"action": [1, 2]})))
    thread.start()
    wait_until(lambda: policy.is_waiting, "the step")
    assert served.ask("DELETE", path)[0] == 204
    thread.join(60)
    may_continue.set()
    assert answers[0][0] == 500 and "was ended" in answers[0][1]["error"]
    status, answer = served.ask("POST", f"/api/sessions/{start(served)['session']}/step", {"action": [1, 2]})
    assert status == 200 and answer["step"] == 1


@pytest.mark.slow
def test_idle_sessions_lose_their_places(serve):
    served = serve(idle_seconds=0.5)
    path = f"/api/sessions/{start(served)['session']}"
    wait_until(lambda: served.sessions == 0, "the idle session to end")
    status, answer = served.ask("POST", f"{path}/step", {"action": [1, 2]})
    assert status == 404 and "0.5 idle seconds" in answer["error"]


def test_a_token_is_required_except_for_the_page_and_the_health_check(serve):
    served = serve(token="secret")
    assert served.request("GET", "/")[0] == served.request("GET", "/health")[0] == 200
    for method, path in (("GET", "/api/world"), ("POST", "/api/sessions"), ("GET", "/metrics")):
        assert served.request(method, path)[0] == 401
        assert served.request(method, path, Authorization="Bearer wrong")[0] == 401
        assert served.request(method, f"{path}?token=secret")[0] in (200, 201)
        assert served.request(method, path, Authorization="Bearer secret")[0] in (200, 201)


def test_pages_of_other_sites_are_refused(served):
    assert served.ask("POST", "/api/sessions", {}, Origin="http://elsewhere.example")[0] == 403
    assert served.ask("POST", "/api/sessions", {}, Origin=served.url)[0] == 201


def test_health_metrics_and_the_world(served):
    session = start(served)["session"]
    served.ask("POST", f"/api/sessions/{session}/step", {"action": [1, 2]})
    assert served.ask("GET", "/health") == (200, {"status": "ok"})
    lines = served.request("GET", "/metrics")[1].decode().splitlines()
    assert 'dreamer_sessions{kind="policy"} 1.0' in lines and "dreamer_frames_total 1.0" in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    world = served.ask("GET", "/api/world")[1]
    assert world["frame_size"] == [16, 16] and world["fps"] == 20 and world["num_starts"] == 2
    assert world["actions"]["names"] == ["target_x", "target_y"] and world["actions"]["high"] == [512, 500]
