"""A world served to browsers (WebSocket) and to policies (REST): `python -m dreamer_hf.serve --model PATH_OR_REPO`."""
