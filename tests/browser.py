"""A real browser, headless Chromium, and the page as a person sees it."""

import io
import shutil

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from waiting import wait_until

PHONE = {"width": 390, "height": 844, "pixelRatio": 2, "touch": True}
PHONE_ON_ITS_SIDE = PHONE | {"width": 844, "height": 390}


def open_browser(device=None):
    """Open a browser, with the screen of a phone if one is given."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "chromium or chromedriver is missing: run `make system-packages`"
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,860"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if device is not None:
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": device})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))


class Page:
    """The page as a person sees it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get_log("browser")  # drops the entries of the previous page
        self.driver.get(url)
        return self

    def text(self, name):
        return self.driver.find_element(By.ID, name).text

    def shown(self, name):
        return self.driver.find_element(By.ID, name).is_displayed()

    def click(self, name):
        self.driver.find_element(By.ID, name).click()

    @property
    def frame(self):
        text = self.text("frame")
        return int(text) if text.isdecimal() else -1

    @property
    def values(self):
        return [float(value.text) for value in self.driver.find_elements(By.CSS_SELECTOR, ".action .value")]

    @property
    def gauges(self):
        """What the page shows of the state: names with units, and values."""
        rows = self.driver.find_elements(By.CSS_SELECTOR, ".gauge")
        parts = [[row.find_element(By.CLASS_NAME, name).text for name in ("name", "value")] for row in rows]
        return {name: float(value) for name, value in parts}

    @property
    def cameras(self):
        """The names on the views."""
        return [name.text for name in self.driver.find_elements(By.CSS_SELECTOR, "#cameras span")]

    def image(self):
        """Return what the canvas shows, uint8 (H, W, 3)."""
        numbers = self.driver.execute_script(
            "const c = document.getElementById('screen');"
            "return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
        )
        return np.array(numbers[2], dtype=np.uint8).reshape(numbers[0], numbers[1], 4)[..., :3]

    def wait_for_frames(self, count=3):
        goal = self.frame + count
        wait_until(lambda: self.frame >= goal, "frames")

    def screenshot(self, path):
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        image.save(path)
        assert len(image.getcolors(2**24)) > 50, f"{path} shows nothing"

    def check_no_errors(self):
        assert [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"] == []

    def check_it_fits(self):
        """Nothing is cut off at the sides, and all controls are visible."""
        outside = self.driver.execute_script(
            "const names = ['#screen', '#state', '#pause', '#record', '.pad'];"
            "return names.filter((name) => { const box = document.querySelector(name).getBoundingClientRect();"
            "  return box.width && (box.right > innerWidth || box.left < 0 || box.bottom > innerHeight); })"
        )
        width = self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert outside == [] and width <= 0
