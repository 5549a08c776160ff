"""The page in a real browser: headless Chromium, used as a person would."""

import io
import re
import time

import av
import numpy as np
import pytest
import torch
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import PHONE, PHONE_ON_ITS_SIDE, Page, open_browser
from dreamer_hf.start_frames import StartFrames
from tiny import make_starts, make_world, random_world
from waiting import wait_until

pytestmark = pytest.mark.system
GAMEPAD = """
window.pad = {connected: true, axes: [0.02, 0], buttons: Array.from({length: 16}, () => ({value: 0, pressed: false}))};
navigator.getGamepads = () => [window.pad];
"""


@pytest.fixture(scope="module")
def desktop():
    driver = open_browser()
    yield Page(driver)
    driver.quit()


@pytest.fixture
def page(desktop, served):
    yield desktop.open(f"{served.url}/?format=png&start=0")
    desktop.check_no_errors()


def player_of(served):
    return next(iter(served.service.sessions.values()))


def test_a_held_key_moves_the_action_and_the_figures_are_shown(page, tmp_path):
    page.wait_for_frames()
    first, before = page.image(), page.values
    ActionChains(page.driver).key_down(Keys.ARROW_RIGHT).perform()
    wait_until(lambda: page.values[0] > before[0] + 30, "the action to move")
    page.wait_for_frames()
    assert page.values[1] == before[1] and not np.array_equal(page.image(), first)
    wait_until(lambda: re.fullmatch(r"[\d.]+ of 20/s", page.text("rate")), "the frame rate")
    assert page.text("latency").endswith(" ms") and page.text("start") == "1 of 2"
    page.screenshot(tmp_path / "desktop.png")
    ActionChains(page.driver).key_up(Keys.ARROW_RIGHT).perform()
    wait_until(lambda: action_is_steady(page), "the key to be released")


def action_is_steady(page):
    before = page.values
    page.wait_for_frames(2)
    return page.values == before


def test_the_canvas_shows_the_exact_pixels_and_pauses(page, served, tmp_path):
    page.wait_for_frames()
    ActionChains(page.driver).send_keys(" ").perform()
    wait_until(lambda: page.text("message") == "Paused", "the pause")
    player = player_of(served)
    wait_until(lambda: page.frame == player.latest.step, "the last frame")
    np.testing.assert_array_equal(page.image(), player.latest.frame)
    page.screenshot(tmp_path / "paused.png")
    step = page.frame
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    wait_until(lambda: page.frame == step + 1, "one step")
    page.click("reset")
    wait_until(lambda: page.frame == 0 and page.text("start") == "2 of 2", "the next start")
    page.click("pause")
    wait_until(lambda: page.text("message") == "Playing" and page.frame > 2, "the game to continue")


def test_a_press_on_the_image_is_a_position(page):
    page.wait_for_frames()
    canvas = page.driver.find_element(By.ID, "screen")
    half = canvas.size["width"] // 2 - 2
    mouse = ActionChains(page.driver).move_to_element_with_offset(canvas, half, -half).click_and_hold()
    mouse.perform()
    wait_until(lambda: page.values[0] > 500 and page.values[1] < 20, "the action to follow the mouse")
    ActionChains(page.driver).release().perform()
    page.wait_for_frames()
    assert page.values[0] > 500  # the target stays where the mouse left it


def test_a_gamepad_is_calibrated_and_pauses_when_unplugged(desktop, served):
    script = desktop.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": GAMEPAD})
    try:
        page = desktop.open(f"{served.url}/")
        page.wait_for_frames()
        before = page.values
        page.wait_for_frames()
        assert page.values == before
        page.driver.execute_script("window.pad.axes = [0.02, 0.9]")
        wait_until(lambda: page.values[1] > before[1] + 30, "the action to move")
        assert page.values[0] == before[0]
        page.driver.execute_script("window.pad.connected = false; dispatchEvent(new Event('gamepaddisconnected'))")
        wait_until(lambda: "unplugged" in page.text("message"), "the pause")
    finally:
        desktop.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_recording_is_offered_as_a_download(page, served):
    page.wait_for_frames()
    page.click("record")
    wait_until(lambda: page.shown("live"), "the recording sign")
    page.wait_for_frames(8)
    page.click("record")
    wait_until(lambda: page.shown("download"), "the download")
    link = page.driver.find_element(By.ID, "download").get_attribute("href")
    status, video = served.request("GET", link.removeprefix(served.url))
    assert status == 200
    with av.open(io.BytesIO(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 8


def test_a_full_server_and_a_lost_connection_are_shown_and_play_again_reconnects(desktop, serve):
    served = serve(max_sessions=1)
    with served.play():
        page = desktop.open(f"{served.url}/")
        wait_until(lambda: "all 1 places are taken" in page.text("message"), "the refusal")
        assert page.shown("reconnect")
    wait_until(lambda: served.sessions == 0, "the place to be free")
    page.click("reconnect")
    page.wait_for_frames()
    player_of(served).fail("the server failed at this dream")
    player_of(served).notify()
    wait_until(lambda: "the server failed" in page.text("message"), "the reason")


def test_a_token_in_the_url_is_passed_on(desktop, serve):
    served = serve(token="secret")
    page = desktop.open(f"{served.url}/")
    wait_until(lambda: "requires a token" in page.text("message"), "the refusal")
    page.open(f"{served.url}/?token=secret").wait_for_frames()


@pytest.mark.parametrize("device", [PHONE, PHONE_ON_ITS_SIDE], ids=["upright", "on its side"])
def test_a_phone_has_pads_for_thumbs_and_everything_is_visible(serve, device, tmp_path):
    names = ["shoulder", "elbow", "wrist", "a gripper with a long name"]
    world = make_world(action_dim=4, action_names=names, action_stats=None)
    served = serve(world, starts=make_starts(action_dim=4))
    driver = open_browser(device)
    try:
        page = Page(driver).open(f"{served.url}/")
        page.wait_for_frames(8)
        page.check_it_fits()
        pad = driver.find_elements(By.CLASS_NAME, "pad")[1]
        finger = ActionBuilder(driver, mouse=PointerInput("touch", "finger"))
        finger.pointer_action.move_to(pad).pointer_down().move_to(pad, 50, 0)
        finger.perform()
        wait_until(lambda: page.values[2] > 0.4, "the action to follow the thumb")
        assert page.values[:2] == [0, 0]
        page.screenshot(tmp_path / "phone.png")
        finger.clear_actions()
        page.check_no_errors()
    finally:
        driver.quit()


@pytest.mark.parametrize("device", [None, PHONE, PHONE_ON_ITS_SIDE], ids=["desktop", "phone", "phone on its side"])
def test_frames_of_any_shape_are_undistorted_and_fit(serve, device, tmp_path):
    driver = open_browser(device)
    try:
        for height, width in ((48, 128), (72, 96), (128, 48), (8, 8)):
            world = random_world(image_size=(height, width), action_dim=2)
            frames = torch.zeros(1, 3, 3, height, width, dtype=torch.uint8)
            starts = StartFrames(frames, torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool))
            page = Page(driver).open(serve(world, starts).url)
            page.wait_for_frames(2)
            page.check_it_fits()
            box = driver.find_element(By.ID, "screen").rect
            assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.02)
            assert max(box["width"], box["height"]) > 200
            page.screenshot(tmp_path / f"{width}x{height}.png")
    finally:
        driver.quit()


def test_a_closed_page_frees_its_row(served):
    driver = open_browser()
    try:
        Page(driver).open(served.url).wait_for_frames()
    finally:
        driver.quit()
    started = time.monotonic()
    wait_until(lambda: served.sessions == 0, "the place to be free")
    assert time.monotonic() - started < 30


def joint_world(num_cameras, size, num_joints):
    """A world of some cameras with views of `size` (height, width), and its start frames."""
    names = [f"camera {number}" for number in range(num_cameras)]
    joints = [f"arm.joint_{number}.pos" for number in range(num_joints)]
    stats = {"mean": [0.0], "std": [60.0], "min": [-180.0], "max": [180.0]}
    stats = {name: values * num_joints for name, values in stats.items()}
    state = {"state_dim": num_joints, "state_names": joints, "state_units": ["deg"] * num_joints, "state_stats": stats}
    fields = {"camera_names": names, "num_latent_tokens": 2 * num_cameras, "action_dim": 2} | state
    frames = torch.randint(0, 256, (1, 3, num_cameras, 3, *size), dtype=torch.uint8)
    actions, mask = torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)
    return random_world(image_size=size, **fields), StartFrames(frames, actions, mask)


@pytest.mark.parametrize("device", [None, PHONE, PHONE_ON_ITS_SIDE], ids=["desktop", "phone", "phone on its side"])
def test_views_of_several_cameras_are_large_and_undistorted_next_to_gauges(serve, device, tmp_path):
    driver = open_browser(device)
    try:
        for num_cameras, size, num_joints in ((2, (48, 64), 6), (4, (64, 64), 14)):
            served = serve(*joint_world(num_cameras, size, num_joints))
            page = Page(driver).open(f"{served.url}/?format=png")
            page.wait_for_frames(2)
            check_views(page, paused_frame(page, served), num_cameras, size)
            page.check_it_fits()
            shown = driver.find_elements(By.CSS_SELECTOR, ".gauge")
            assert len(shown) == num_joints and len(page.cameras) == num_cameras
            page.screenshot(tmp_path / f"{num_cameras} cameras.png")
            page.check_no_errors()
    finally:
        driver.quit()


def test_a_press_on_a_view_is_a_position_in_this_view(desktop, serve):
    page = desktop.open(serve(*joint_world(2, (48, 64), 2)).url)
    page.wait_for_frames()
    canvas = page.driver.find_element(By.ID, "screen")
    mouse = ActionChains(page.driver).move_to_element_with_offset(canvas, -canvas.size["width"] // 4, 0)
    mouse.click_and_hold().perform()  # the middle of the left view
    wait_until(lambda: max(map(abs, page.values)) < 0.1, "the action to be in the middle")
    mouse = ActionChains(page.driver).move_to_element_with_offset(canvas, -12, canvas.size["height"] // 2 - 4)
    mouse.perform()  # its lower right corner
    wait_until(lambda: min(page.values) > 0.9, "the action to follow the mouse")
    ActionChains(page.driver).release().perform()
    page.check_no_errors()


def paused_frame(page, served):
    """Pause and return the last frame that the server sent."""
    ActionChains(page.driver).send_keys(" ").perform()
    wait_until(lambda: page.text("message") == "Paused", "the pause")
    player = player_of(served)
    wait_until(lambda: page.frame == player.latest.step, "the last frame")
    return player.latest.frame


def check_views(page, frame, num_cameras, size):
    """Every view shows its camera, in rows of equal views that keep their shape and are not tiny."""
    height, width = size
    gap, canvas = max(1, round(width / 64)), page.image()
    columns = (canvas.shape[1] + gap) // (width + gap)
    for number in range(num_cameras):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        view = canvas[top : top + height, left : left + width]
        np.testing.assert_array_equal(view, frame[:, number * width : (number + 1) * width])
    box = page.driver.find_element(By.ID, "screen").rect
    assert box["width"] / box["height"] == pytest.approx(canvas.shape[1] / canvas.shape[0], rel=0.02)
    assert box["width"] / columns > 100
