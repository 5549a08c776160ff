"""A server of static files in a thread, whose connections can break."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which a page may use several threads."""


class StaticServer:
    """Serves a folder on a free port of this machine while its block runs.

    Args:
        folder: what to serve.
        headers: sent with every answer.

    Attributes:
        url: address of the folder.
        requests: the paths that were asked for.
        broken: names of files whose connection ends in the middle.
    """

    def __init__(self, folder: Path, headers: dict[str, str] | None = None):
        self.requests: list[str] = []
        self.broken: set[str] = set()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

            def log_message(self, *args):
                pass

            def end_headers(self):
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                super().end_headers()

            def do_GET(self):
                server.requests.append(self.path)
                super().do_GET()

            def copyfile(self, source, target):
                if Path(self.path).name not in server.broken:
                    return super().copyfile(source, target)
                target.write(source.read(1000))
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
