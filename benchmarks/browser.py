"""Measure the exported page of a world in headless Chromium and print a table: download, first frame, frames per
second.

The page comes from a server on this machine. Steps are timed without the pacing of the page, with all
denoising passes and the decoder. The engine in Python, on one thread too, dreams the same number of
frames in between, as a measure of how busy the machine is.

python benchmarks/browser.py                        the shipped world
python benchmarks/browser.py --model outputs/world --frames 200
python benchmarks/browser.py --frames 2             a short test
"""

import argparse
import functools
import json
import shutil
import statistics
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from selenium import webdriver
from selenium.webdriver.common.by import By

from benchmark_tools import describe_machine, print_table
from dreamer_hf.cli import run_script
from dreamer_hf.loading import load_world_and_starts
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.options import WorldOptions
from dreamer_hf.web.web_export import export_web
from dreamer_hf.web.web_options import WebOptions

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
TIMEOUT = 300
BLOCK = 10  # frames that one engine dreams before the other
OPEN = """
const [threads, done] = arguments;
async function open() {
  const load = (name) => import(new URL(name, location.href).href);
  const [{ Site }, { Dream }] = await Promise.all(["site.js", "dream.js"].map(load));
  const site = await Site.open(new URL("../", location.href).href);
  const dream = new Dream(await site.loadWorld("wasm", threads), 0, 0n);
  await dream.begin();
  window.dream = dream;
}
open().then(() => done(null), (error) => done(`${error}`));
"""
STEP = """
const [count, done] = arguments;
async function steps() {
  const times = [];
  for (let i = 0; i < count; i++) {
    const started = performance.now();
    await window.dream.step(new Float32Array(window.dream.world.actionSize));
    times.push((performance.now() - started) / 1000);
  }
  return times;
}
steps().then(done);
"""


class Handler(SimpleHTTPRequestHandler):
    """Answers as a Space does, and quietly."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *args) -> None:
        """Print nothing."""

    def end_headers(self) -> None:
        """Isolate the page, so that it may use threads."""
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        super().end_headers()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pusht-tiny", help="World to measure (default: %(default)s).")
    parser.add_argument("--dtype", default="float16", help="How weights are stored (default: %(default)s).")
    parser.add_argument("--frames", type=int, default=100, help="Frames of each engine (default: %(default)s).")
    args = parser.parse_args()
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        raise ValueError("chromium or chromedriver is missing: run `make system-packages`.")
    print(f"{describe_machine(torch.device('cpu'))}\n")
    with tempfile.TemporaryDirectory() as folder:
        site, graphs = Path(folder) / "site", Path(folder) / "onnx"
        export_web(WebOptions(output_dir=str(site), model=args.model, dtype=args.dtype))
        world, starts = load_world_and_starts(WorldOptions(model=args.model, device="cpu"))
        export_onnx(world, graphs, "float16", starts)
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        visits, times = measure(programs, url, OnnxWorld.from_pretrained(graphs, threads=1), args.frames)
        server.shutdown()
        print_results(site, visits, times, world.config.dynamics_config.fps)


def measure(programs: list[str], url: str, world, num_frames: int) -> tuple[list[float], dict[str, list[float]]]:
    """Return seconds to the first frame of two visits, and seconds of each frame by engine."""
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    try:
        driver.set_script_timeout(TIMEOUT)
        visits = [seconds_to_first_frame(driver, url) for _ in range(2)]
        driver.get(f"{url}/static/check.js")
        error = driver.execute_async_script(OPEN, 1)
        if error is not None:
            raise ValueError(f"the world does not run in this browser ({error}): try another one with --model.")
        rollout = world.start_rollout(world.starts.select([0]))
        action = np.zeros((1, world.space.size), np.float32)
        times = {"browser": [], "Python": []}
        driver.execute_async_script(STEP, 2), rollout.step(action)  # kernels and memory are prepared
        while len(times["browser"]) < num_frames:
            count = min(BLOCK, num_frames - len(times["browser"]))
            times["browser"] += driver.execute_async_script(STEP, count)
            for _ in range(count):
                started = time.perf_counter()
                rollout.step(action)
                times["Python"].append(time.perf_counter() - started)
        return visits, times
    finally:
        driver.quit()


def seconds_to_first_frame(driver, url: str) -> float:
    """Open the page and return the time until it shows a frame."""
    started = time.perf_counter()
    driver.get(url)
    while not driver.find_element(By.ID, "frame").text.isdecimal():
        if time.perf_counter() - started > TIMEOUT:
            raise ValueError(f"no frame within {TIMEOUT} s: {driver.find_element(By.ID, 'message').text}.")
        time.sleep(0.01)
    return time.perf_counter() - started


def print_results(site: Path, visits: list[float], times: dict[str, list[float]], fps: float) -> None:
    """Print what was measured."""
    content = json.loads((site / "site.json").read_text())
    sizes = {name: entry["size"] for name, entry in content["files"].items()}
    page = sum(path.stat().st_size for path in (site / "static").iterdir()) + (site / "index.html").stat().st_size
    wasm = content["runtime"]["wasm"]
    runtime = sizes[wasm["binary"]] + (site / wasm["module"]).stat().st_size
    dreamed = sum(sizes[name] for name in content["world"].values())
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        ["download: world, MB", f"{dreamed / 1e6:.1f}"],
        ["download: all, MB", f"{(dreamed + runtime + page) / 1e6:.1f}"],
        ["first visit to first frame, s", f"{visits[0]:.1f}"],
        ["second visit to first frame, s", f"{visits[1]:.1f}"],
        [f"browser, one thread, frames/s (the world plays at {fps:g})", f"{1 / median['browser']:.1f}"],
        ["ONNX engine in Python, one thread, frames/s", f"{1 / median['Python']:.1f}"],
        ["browser / Python, in this run", f"{median['Python'] / median['browser']:.2f}"],
    ]
    print_table(["measure", "value"], rows)


if __name__ == "__main__":
    run_script(main)
