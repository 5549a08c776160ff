"""A small HTTP server that answers huggingface_hub as the Hub does, for one dataset repository held in memory."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn:
    """`files` holds what was uploaded, `requests` every request line; `address` goes into HF_ENDPOINT."""

    def __init__(self, repo_id: str, token: str):
        self.repo_id, self.token = repo_id, token
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, *args):
        pass

    def answer(self, content=None, status=200, headers=None, body=None):
        body = json.dumps(content).encode() if body is None else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_POST(self):
        body = self.read_body()
        self.hub.requests.append(f"POST {self.path}")
        api = f"/api/datasets/{self.hub.repo_id}"
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer({"error": "Invalid username or password."}, status=401)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.hub.address}/datasets/{self.hub.repo_id}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"{api}/preupload/main":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path == f"{api}/commit/main":
            for line in map(json.loads, body.decode().strip().splitlines()):
                if line["key"] == "file":
                    self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {"commitUrl": f"{self.hub.address}/datasets/{self.hub.repo_id}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self.answer({"error": "not found"}, status=404)

    def do_GET(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        api, resolve = f"/api/datasets/{self.hub.repo_id}", f"/datasets/{self.hub.repo_id}/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self.answer({"id": self.hub.repo_id, "sha": COMMIT, "siblings": siblings})
        elif path == f"{api}/tree/{COMMIT}":
            entries = [{"type": "file", "path": n, "size": len(c), "oid": _sha1(c)} for n, c in self.hub.files.items()]
            self.answer(entries)
        elif path.startswith(resolve) and path.rpartition("/")[2] in self.hub.files:
            content = self.hub.files[path.rpartition("/")[2]]
            self.answer(body=content, headers={"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
