"""The trust of served frames: in the description, over REST and WebSocket, and as a gauge on the page."""

import json

import pytest
import torch
from serving import next_frame, plain_rollout, send

from browser import Page, open_browser
from dreamer_hf.engines import engine_for
from dreamer_hf.trust import TrustedRollout, TrustModel, trust_content
from waiting import wait_until

MODEL = TrustModel(("spread",), (1.0,), 2.0, "image", 6.0, 100, 10, 0.8, 4)


@pytest.fixture
def served(serve, tmp_path):
    (tmp_path / "trust.json").write_text(json.dumps(trust_content(MODEL)))
    return serve(model=str(tmp_path), trust=True)


def test_a_policy_gets_the_trust_of_a_trusted_rollout(served, serve, world, starts):
    assert served.ask("GET", "/api/world")[1]["trust"] is True
    trusted = TrustedRollout(engine_for(world), plain_rollout(world, starts, 0, 3), MODEL)
    status, answer = served.ask("POST", "/api/sessions", {"start": 0, "seed": 3})
    assert status == 201 and answer["trust"] == 1
    path, action = f"/api/sessions/{answer['session']}/step", [100.0, 350.0]
    for _ in range(3):
        expected = float(trusted.step(torch.tensor([action])).trust[0])
        assert served.ask("POST", path, {"action": action})[1]["trust"] == pytest.approx(expected, abs=1e-3)
    assert 0 < expected < 1
    plain = serve()
    assert plain.ask("GET", "/api/world")[1]["trust"] is False
    assert "trust" not in plain.ask("POST", "/api/sessions", {})[1]


def test_a_player_gets_trust_with_every_frame(served):
    with served.play("?start=1&seed=2") as socket:
        assert json.loads(socket.recv())["trust"] is True
        assert next_frame(socket)[0]["trust"] == 1
        send(socket, type="action", action=[100, 200])
        later, _ = next_frame(socket, lambda header: header["step"] > 2)
        assert 0 < later["trust"] < 1
        send(socket, type="reset", start=0)
        assert next_frame(socket, lambda header: header["step"] == 0)[0]["trust"] == 1


def test_a_world_without_a_trust_model_is_refused(serve, tmp_path):
    with pytest.raises(ValueError, match=r"carries no trust\.json: fit one with"):
        serve(model=str(tmp_path), trust=True)


@pytest.mark.system
def test_the_page_has_a_gauge_of_trust(served, serve):
    driver = open_browser()
    try:
        page = Page(driver).open(served.url)
        page.wait_for_frames()
        wait_until(lambda: 0 < page.gauges["trust"] < 1, "the trust of a frame")
        page.check_no_errors()
        page.open(serve().url).wait_for_frames()
        assert page.gauges == {} and not page.shown("gauges")
    finally:
        driver.quit()
