"""Exported pages of worlds, and browsers that open them."""

from dataclasses import replace

import pytest
import torch

from browser import Page, open_browser
from dreamer_hf.start_frames import save_start_frames
from dreamer_hf.web.web_export import export_web
from dreamer_hf.web.web_options import WebOptions
from static_server import StaticServer
from tiny import CAMERAS, STATE, build_once, make_arm_starts, make_starts, tiny_states, tiny_world

torch.set_num_threads(1)  # tiny models run faster without the overhead of several threads


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The folder of a world whose tokenizer and dynamics model both remember the past."""

    def build(folder):
        stats = {"mean": [250.0, 260.0], "std": [100.0, 90.0], "min": [0.0, 10.0], "max": [512.0, 500.0]}
        fields = {"action_names": ["target_x", "target_y"], "action_stats": stats, "fps": 20}
        tiny_world(dynamics_changes=fields).save_pretrained(folder)
        save_start_frames(folder, make_starts())

    return build_once(tmp_path_factory, "world", build)


@pytest.fixture(scope="session")
def tiny_site(tmp_path_factory, tiny_folder):
    """The page of this world, in float32: random weights let rounding errors grow."""

    def build(folder):
        export_web(WebOptions(output_dir=str(folder), model=str(tiny_folder), dtype="float32"))

    return build_once(tmp_path_factory, "tiny_site", build)


@pytest.fixture(scope="session")
def arm_folder(tmp_path_factory):
    """The folder of a world with a state and two cameras; its second start knows the state of some frames only."""

    def build(folder):
        actions = {"mean": [250.0, 260.0], "std": [100.0, 90.0], "min": [0.0, 10.0], "max": [512.0, 500.0]}
        fields = STATE | CAMERAS | {"action_stats": actions, "fps": 20}
        tiny_world(dynamics_changes=fields).save_pretrained(folder)
        starts = make_arm_starts()
        states, known = tiny_states(2, 3), torch.tensor([[True] * 3, [False, True, False]])
        save_start_frames(folder, replace(starts, states=states, state_mask=known))

    return build_once(tmp_path_factory, "arm_world", build)


@pytest.fixture(scope="session")
def arm_site(tmp_path_factory, arm_folder):
    """The page of this world."""

    def build(folder):
        export_web(WebOptions(output_dir=str(folder), model=str(arm_folder), dtype="float32"))

    return build_once(tmp_path_factory, "arm_site", build)


@pytest.fixture(scope="session")
def shipped_site(tmp_path_factory):
    """The page of the shipped world."""
    return build_once(tmp_path_factory, "shipped_site", lambda folder: export_web(WebOptions(output_dir=str(folder))))


@pytest.fixture(scope="module")
def driver():
    """A browser whose cache lasts for a module of tests."""
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture
def served(tiny_site):
    """A server of the tiny world's page."""
    with StaticServer(tiny_site) as server:
        yield server


@pytest.fixture
def page(driver, served):
    """The tiny world's page, open and playing."""
    page = Page(driver).open(f"{served.url}/?start=0&seed=7")
    page.wait_for_frames()
    yield page
    page.check_no_errors()
