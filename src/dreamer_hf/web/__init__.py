"""Worlds as web pages: a static folder that plays a world in the visitor's browser, and its upload as a Space.

`static/` holds the page, which `dreamer serve` uses too, and `onnxruntime/` the ONNX Runtime of browsers.
"""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Folder of the page: HTML, CSS and JavaScript."""

__all__ = ["STATIC"]
