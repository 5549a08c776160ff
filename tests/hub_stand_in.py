"""A small HTTP server that answers huggingface_hub as the Hub does, for one repository held in memory."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".gzipped", ".h5", ".npz")
"""Files of these kinds travel as the Hub's large files do: their content apart from the commit."""
NEW_FILES = {".gitattributes": b"*.h5 filter=lfs diff=lfs merge=lfs -text\n"}
"""What a repository holds that was created in a browser."""


class HubStandIn:
    """`files` holds what was uploaded (or put there), `tags` the names of tags, which all mean the one commit,
    `requests` every request line, `created` what was asked of a new repository; `environment` is for the client's
    process. The next `refusals` commits are refused, as the Hub does while another process makes one.

    Args:
        repo_id: the repository.
        token: who shows it may write.
        kind: "models", "datasets" or "spaces".
    """

    def __init__(self, repo_id: str, token: str, kind: str = "datasets"):
        self.repo_id, self.token = repo_id, token
        self.api = f"/api/{kind}/{repo_id}"
        self.path = f"/{repo_id}" if kind == "models" else f"/{kind}/{repo_id}"
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.tags: list[str] = []
        self.requests: list[str] = []
        self.created: dict = {}
        self.refusals = 0
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home, token: str | None = None) -> dict[str, str]:
        """Variables that lead the real client here, with its cache in `home`."""
        return {
            **{"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_TOKEN": token or self.token},
            **{"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        }

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
        api = self.hub.api
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer({"error": "Invalid username or password."}, status=401)
        elif self.path == "/api/repos/create":
            self.hub.created = json.loads(body)
            self.answer({"url": f"{self.hub.address}{self.hub.path}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"{api}/preupload/main":
            modes = {f["path"]: "lfs" if f["path"].endswith(LARGE) else "regular" for f in json.loads(body)["files"]}
            self.answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif self.path == f"{self.hub.path}.git/info/lfs/objects/batch":
            self.answer(
                {"transfer": "basic", "objects": [self._upload_action(o) for o in json.loads(body)["objects"]]}
            )
        elif self.path == f"{api}/commit/main" and self.hub.refusals > 0:
            self.hub.refusals -= 1
            self.answer({"error": "A commit has happened since. Please refresh and try again."}, status=412)
        elif self.path == f"{api}/commit/main":
            for line in map(json.loads, body.decode().strip().splitlines()):
                if line["key"] == "file":
                    self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.hub.files[line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
                elif line["key"] == "deletedFile":
                    del self.hub.files[line["value"]["path"]]
            self.answer({"commitUrl": f"{self.hub.address}{self.hub.path}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": "not found"}, status=404)

    def _upload_action(self, wanted: dict) -> dict:
        return wanted | {"actions": {"upload": {"href": f"{self.hub.address}/large/{wanted['oid']}"}}}

    def do_PUT(self):
        content, oid = self.read_body(), self.path.rpartition("/")[2]
        self.hub.requests.append(f"PUT {self.path}")
        matches = hashlib.sha256(content).hexdigest() == oid
        if matches:
            self.hub.large[oid] = content
        self.answer({}, status=200 if matches else 400)

    def do_GET(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        api, resolve = self.hub.api, f"{self.hub.path}/resolve/"
        name = unquote(path.removeprefix(resolve).partition("/")[2])  # after the revision
        revision = unquote(path.removeprefix(f"{api}/revision/"))
        if path == api or revision in ("main", COMMIT, *self.hub.tags):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self.answer({"id": self.hub.repo_id, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"{api}/revision/"):
            self.answer({"error": "Revision not found"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        elif path == f"{api}/refs":
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": COMMIT} for tag in self.hub.tags]
            self.answer({"branches": [], "converts": [], "tags": tags})
        elif path.startswith(f"{api}/tree/"):
            entries = [{"type": "file", "path": n, "size": len(c), "oid": _sha1(c)} for n, c in self.hub.files.items()]
            self.answer(entries)
        elif path.startswith(resolve) and name in self.hub.files:
            self.answer_file(self.hub.files[name])
        elif path.startswith(resolve):
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            self.answer({"error": "Entry not found"}, status=404, headers=headers)
        else:
            self.answer({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})

    def answer_file(self, content: bytes):
        headers = {"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": COMMIT}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self.answer(body=content[first : last + 1], status=206, headers=headers)
        else:
            self.answer(body=content, headers=headers)

    do_HEAD = do_GET


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
