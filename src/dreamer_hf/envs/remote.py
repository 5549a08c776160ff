"""A served world as a Gymnasium environment. It needs no torch: only NumPy and the standard library's HTTP client.

Shapes: H, W pixels, A action components, S state components.
"""

import base64
import http.client
import json
from urllib.parse import urlsplit

import gymnasium
import numpy as np

TIMEOUT_SECONDS = 60.0


class RemoteWorldEnv(gymnasium.Env):
    """Steps a world on a server (`python -m dreamer_hf.serve`). It has no reward, and episodes do not end.

    Observations are uint8 (H, W, 3) RGB, several cameras side by side. Those of a world with a state are dictionaries
    of `pixels`, the frame, and `state`, float32 (S,) in the units of the data.

    Actions are float32 (A,) in the units of the training data and within its range. `reset(seed=...)` determines the
    start and the noise of all episodes that follow; `options={"start": i}` chooses the start. `info` holds `step`,
    `start`, `seed` and `action`, the raw action as the world took it.

    Args:
        url: URL of the server, such as "http://127.0.0.1:8000".
        token: token of the server, if it requires one.
        render_mode: "rgb_array" or None.

    Attributes:
        world: description of the world: `model`, `frame_size` (height, width), `fps`, `num_starts`, `cameras`,
            `state` and `actions` (`names`, `units`, ...).

    Raises:
        ValueError: the URL is malformed, or the server refuses the token.
        ConnectionError: the server does not answer, or is full.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, url: str, token: str | None = None, render_mode: str | None = None):
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"expected the URL of a server, such as http://127.0.0.1:8000, got {url!r}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose rgb_array or None.")
        connect = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self.url, self.render_mode = url, render_mode
        self._connection = connect(address.hostname, address.port, timeout=TIMEOUT_SECONDS)
        self._path = address.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: str | None = None
        self._frame: np.ndarray | None = None
        self.world = self._request("GET", "/api/world")
        actions = self.world["actions"]
        labels = {"action_names": actions["names"], "action_units": actions["units"]}
        self.metadata = {**self.metadata, "render_fps": self.world["fps"], **labels}
        low, high = (np.array(actions[end], dtype=np.float32) for end in ("low", "high"))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        height, width = self.world["frame_size"]
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, 3), dtype=np.uint8)
        state = self.world.get("state")  # which servers of version 0.1 do not send
        if state is not None:
            labels = {"state_names": state["names"], "state_units": state["units"]}
            self.metadata = {**self.metadata, **labels}
            # A dream may leave the range of the data.
            values = gymnasium.spaces.Box(-np.inf, np.inf, (len(state["names"]),), np.float32)
            self.observation_space = gymnasium.spaces.Dict({"pixels": self.observation_space, "state": values})

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start a dream; return (observation, info)."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(self.world["num_starts"]))
        request = {"start": start, "seed": int(self.np_random.integers(2**63 - 1))}
        request.update({name: int(value) for name, value in (options or {}).items() if name in request})
        answer = self._start(request)
        return self._observation(answer), self._info(answer)

    def step(self, action: np.ndarray):
        """Dream one frame; return (observation, 0.0, False, False, info)."""
        if self._session is None:
            raise gymnasium.error.ResetNeeded("there is no dream yet: call reset() before step().")
        values = np.asarray(action, dtype=np.float64).tolist()
        answer = self._request("POST", f"/api/sessions/{self._session}/step", {"action": values})
        return self._observation(answer), 0.0, False, False, self._info(answer)

    def render(self) -> np.ndarray | None:
        """Return the last observation if the render mode is "rgb_array", otherwise None."""
        return None if self.render_mode is None or self._frame is None else self._frame.copy()

    def close(self) -> None:
        """End the session, which frees its place on the server."""
        session, self._session = self._session, None
        try:
            if session is not None:
                self._request("DELETE", f"/api/sessions/{session}")
        except (ConnectionError, gymnasium.error.ResetNeeded):  # the server is gone, or the session has ended
            pass
        finally:
            self._connection.close()

    def _start(self, request: dict) -> dict:
        if self._session is not None:
            try:
                return self._request("POST", f"/api/sessions/{self._session}/reset", request)
            except gymnasium.error.ResetNeeded:  # it was idle for too long: start another
                pass
        answer = self._request("POST", "/api/sessions", request)
        self._session = answer["session"]
        return answer

    def _observation(self, answer: dict) -> np.ndarray | dict[str, np.ndarray]:
        image = answer["observation"]
        self._frame = np.frombuffer(base64.b64decode(image["data"]), image["dtype"]).reshape(image["shape"])
        if "state" not in answer:
            return self._frame.copy()
        state = [np.nan if value is None else value for value in answer["state"]]
        return {"pixels": self._frame.copy(), "state": np.array(state, np.float32)}

    def _info(self, answer: dict) -> dict:
        action = np.array(answer["action"], dtype=np.float32)
        return {name: answer[name] for name in ("step", "start", "seed")} | {"action": action}

    def _request(self, method: str, path: str, message: dict | None = None) -> dict:
        """Send a request and return its answer.

        Raises:
            ValueError: the server refuses the request.
            gymnasium.error.ResetNeeded: the session has ended.
            ConnectionError: the server does not answer, is full or has failed.
        """
        body = None if message is None else _to_json(message)
        status, answer = self._send(method, self._path + path, body)
        if status < 300:
            return answer
        sentence = answer.get("error", f"the server at {self.url} answered with status {status}.")
        if status == 404 and self._session is not None:
            self._session = None
            raise gymnasium.error.ResetNeeded(f"{sentence.removesuffix('start one.')}call reset().")
        raise (ValueError if status < 500 else ConnectionError)(sentence)

    def _send(self, method: str, path: str, body: str | None) -> tuple[int, dict]:
        # The server may have closed a connection that was idle. A request on a new connection cannot be affected by
        # that.
        for is_new in (self._connection.sock is None, True):
            try:
                self._connection.request(method, path, body, self._headers)
                response = self._connection.getresponse()
                data = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if is_new or not isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                    raise ConnectionError(f"no answer from {self.url} ({error}): is the server running?") from error
        try:
            return response.status, json.loads(data or b"{}")
        except ValueError:
            return response.status if response.status >= 300 else 502, {}


def _to_json(message: dict) -> str:
    try:
        return json.dumps(message, allow_nan=False)
    except ValueError as error:
        raise ValueError("the action contains a value that is not finite: send finite numbers.") from error
