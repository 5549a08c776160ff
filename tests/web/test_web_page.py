"""The exported page in a real browser: played, broken, and opened again."""

import io
import json
import shutil

import av
import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import PHONE, PHONE_ON_ITS_SIDE, Page, open_browser
from static_server import ISOLATION, StaticServer
from waiting import wait_until

pytestmark = pytest.mark.system
FETCH_VIDEO = """
const done = arguments[0];
fetch(document.getElementById("download").href).then((answer) => answer.arrayBuffer())
  .then((buffer) => done([...new Uint8Array(buffer)]));
"""


def press(page, key):
    ActionChains(page.driver).send_keys(key).perform()


def pause(page):
    press(page, " ")
    wait_until(lambda: page.text("message") == "Paused", "the pause")


def test_the_dream_follows_a_key_at_the_rate_of_the_world(page, tmp_path):
    before = page.values
    ActionChains(page.driver).key_down(Keys.ARROW_RIGHT).perform()
    wait_until(lambda: page.values[0] > before[0] + 30, "the action to move")
    assert page.values[1] == before[1]
    wait_until(lambda: page.text("rate").endswith(" of 20/s") and page.text("rate")[0].isdigit(), "the frame rate")
    assert page.text("latency").endswith(" ms") and page.text("start") == "1 of 2" and page.text("seed") == "7"
    assert "on one thread" in page.text("engine")
    ActionChains(page.driver).key_up(Keys.ARROW_RIGHT).perform()
    page.screenshot(tmp_path / "page.png")


def test_a_rewind_leads_back_to_the_same_frames(page):
    pause(page)
    for _ in range(12):
        number = page.frame
        press(page, Keys.ENTER)
        wait_until(lambda number=number: page.frame == number + 1, "one step")
    last, frame = page.frame, page.image()
    press(page, Keys.BACKSPACE)
    wait_until(lambda: page.frame == last - 10, "the rewind")
    assert not np.array_equal(page.image(), frame)
    for number in range(last - 9, last + 1):
        press(page, Keys.ENTER)
        wait_until(lambda number=number: page.frame == number, "one step")
    np.testing.assert_array_equal(page.image(), frame)


def test_a_link_leads_to_the_same_dream(page, served):
    page.open(f"{served.url}/?start=1&seed=9223372036854775807")
    page.wait_for_frames(1)
    pause(page)
    assert (page.text("start"), page.text("seed")) == ("2 of 2", "9223372036854775807")
    link = page.driver.find_element(By.ID, "seed").get_attribute("href")
    assert "start=1" in link and "seed=9223372036854775807" in link
    thumbnails = page.driver.find_elements(By.CSS_SELECTOR, "#starts button")
    assert len(thumbnails) == 2
    thumbnails[0].click()
    wait_until(lambda: page.text("start") == "1 of 2" and page.frame == 0, "the other start")
    assert page.text("seed") == "9223372036854775807"
    page.click("reset")
    wait_until(lambda: page.text("start") == "2 of 2" and page.frame == 0, "the next start")


@pytest.mark.parametrize(
    ("query", "sentence"), [("seed=-1", "seed in the address"), ("start=5", "There are 2 starts")]
)
def test_a_wrong_address_is_explained_and_the_game_starts(page, served, query, sentence):
    page.open(f"{served.url}/?{query}")
    wait_until(lambda: sentence in page.text("notice"), "the notice")
    page.wait_for_frames()
    assert page.text("start") == "1 of 2"


def test_a_recording_is_offered_as_a_download(page):
    page.click("record")
    wait_until(lambda: page.shown("live"), "the recording sign")
    page.wait_for_frames(20)
    page.click("record")
    wait_until(lambda: page.shown("download"), "the download")
    with av.open(io.BytesIO(bytes(page.driver.execute_async_script(FETCH_VIDEO)))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) >= 8 and frames[0].shape == (512, 512, 3)


def test_the_second_visit_downloads_no_large_file_again(page, served):
    count = len(served.requests)
    page.open(f"{served.url}/")
    page.wait_for_frames()
    asked = served.requests[count:]
    assert any("site.json" in path for path in asked) and not any("gzipped" in path for path in asked)


def test_a_lost_connection_is_explained_and_nothing_incomplete_is_kept(driver, tiny_site):
    with StaticServer(tiny_site) as server:  # another origin, whose cache is empty
        server.broken = {"dynamics.onnx.gzipped"}
        page = Page(driver).open(f"{server.url}/?start=0&seed=7")
        wait_until(lambda: page.shown("reconnect"), "the failure")
        assert page.text("message") == "The connection was lost during the download: try again."
        kept = (
            "const done = arguments[0];"
            "caches.open('dreamer-files').then((c) => c.keys()).then((k) => done(k.map((r) => r.url)))"
        )
        assert not any("dynamics" in url for url in page.driver.execute_async_script(kept))
        server.broken = set()
        page.click("reconnect")
        page.wait_for_frames()


def test_a_file_of_another_export_is_refused(driver, tiny_site, tmp_path):
    site = shutil.copytree(tiny_site, tmp_path / "site")
    path = site / "world" / "decoder.onnx.gzipped"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with StaticServer(site) as server:
        page = Page(driver).open(server.url)
        wait_until(lambda: "is not the file that this page was made with" in page.text("message"), "the refusal")
        description = json.loads((site / "site.json").read_text())
        (site / "site.json").write_text(json.dumps(description | {"format_version": 2}))
        page.open(server.url)
        wait_until(lambda: "newer than its page" in page.text("message"), "the refusal")
        (site / "site.json").unlink()
        page.open(server.url)
        wait_until(lambda: "site.json could not be downloaded (status 404)" in page.text("message"), "the refusal")


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("WebAssembly.validate = () => false", "WebAssembly with SIMD"),
        ("delete self.DecompressionStream", "decompression of streams"),
    ],
)
def test_a_browser_that_cannot_run_the_dream_says_why(driver, served, script, missing):
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page = Page(driver).open(served.url)
        wait_until(lambda: f"This browser lacks {missing}: use a current" in page.text("message"), "the sentence")
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_page_opened_from_a_file_says_how_to_serve_it(driver, tiny_site):
    page = Page(driver).open((tiny_site / "index.html").as_uri())
    assert "serve its folder" in page.text("message")


def test_an_embedded_page_waits_for_a_click(driver, served):
    page = Page(driver).open(f"{served.url}/?wait")
    wait_until(lambda: page.text("reconnect") == "Play", "the button")
    assert not any("gzipped" in path for path in served.requests)
    page.click("reconnect")
    page.wait_for_frames()


def test_an_isolated_page_uses_several_threads(tiny_site):
    driver = open_browser()
    try:
        with StaticServer(tiny_site, ISOLATION) as server:
            page = Page(driver).open(f"{server.url}/?threads=2")
            page.wait_for_frames()
            assert "on 2 threads" in page.text("engine")
    finally:
        driver.quit()


@pytest.mark.parametrize("device", [PHONE, PHONE_ON_ITS_SIDE], ids=["upright", "on its side"])
def test_everything_fits_a_phone(served, device, tmp_path):
    driver = open_browser(device)
    try:
        page = Page(driver).open(served.url)
        page.wait_for_frames(8)
        page.check_it_fits()
        page.screenshot(tmp_path / "phone.png")
        page.check_no_errors()
    finally:
        driver.quit()


def test_cameras_have_their_names_and_the_state_has_gauges(driver, arm_site, tmp_path):
    with StaticServer(arm_site) as server:
        page = Page(driver).open(f"{server.url}/?start=0&seed=7")
        page.wait_for_frames(8)
        assert page.cameras == ["front", "wrist"]
        assert page.image().shape == (16, 2 * 16 + 1, 3)  # one column between the views
        before = page.gauges
        assert list(before) == ["shoulder rad", "elbow rad", "grip"] and before["grip"] == pytest.approx(30, abs=20)
        page.wait_for_frames(4)
        assert page.gauges != before
        thumbnail = driver.find_element(By.CSS_SELECTOR, "#starts canvas")
        assert thumbnail.get_property("width") == thumbnail.get_property("height") == 16  # the first camera
        page.check_it_fits()
        page.screenshot(tmp_path / "arm.png")
        page.check_no_errors()


@pytest.mark.parametrize("device", [PHONE, PHONE_ON_ITS_SIDE], ids=["upright", "on its side"])
def test_cameras_and_gauges_fit_a_phone(arm_site, device, tmp_path):
    driver = open_browser(device)
    try:
        with StaticServer(arm_site) as server:
            page = Page(driver).open(server.url)
            page.wait_for_frames(8)
            page.check_it_fits()
            assert len(page.gauges) == 3 and page.cameras == ["front", "wrist"]
            page.screenshot(tmp_path / "arm.png")
            page.check_no_errors()
    finally:
        driver.quit()
