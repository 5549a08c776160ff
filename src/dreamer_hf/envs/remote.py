"""A served world as a Gymnasium environment, for machines without torch: numpy and the standard library's HTTP client.

H, W pixels, A action dimensions.
"""

import base64
import http.client
import json
from urllib.parse import urlsplit

import gymnasium
import numpy as np

TIMEOUT_SECONDS = 60.0


class RemoteWorldEnv(gymnasium.Env):
    """Steps a world that `python -m dreamer_hf.serve` serves; a dream has no reward and no end of its own.

    Observations are uint8 (H, W, 3) RGB; actions are float32 (A,) in the data's own units, in the range of the training
    data. `reset(seed=...)` fixes start and noise of all dreams that follow; `options={"start": i}` chooses the start.
    `info` holds `step`, `start`, `seed` and `action`, the raw action as the world has taken it.

    Args:
        url: of the server, such as "http://127.0.0.1:8000".
        token: that the server asks for, if it does.
        render_mode: "rgb_array", or None.

    Attributes:
        world: what the server says about its world: `frame_size` (height, width), `fps`, `num_starts`, `actions` (`names`, `units`, ...).

    Raises:
        ValueError: an address or a token that the server does not take.
        ConnectionError: no server there, or no place in it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, url: str, token: str | None = None, render_mode: str | None = None):
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url!r} is no address of a server: give one such as http://127.0.0.1:8000.")
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
        self.world = self._ask("GET", "/api/world")
        self.metadata = {**self.metadata, "render_fps": self.world["fps"], **self._names()}
        low, high = (np.array(self.world["actions"][end], dtype=np.float32) for end in ("low", "high"))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        height, width = self.world["frame_size"]
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, 3), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begins a dream: (observation, info)."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(self.world["num_starts"]))
        wishes = {"start": start, "seed": int(self.np_random.integers(2**63 - 1))}
        wishes.update({name: int(value) for name, value in (options or {}).items() if name in wishes})
        answer = self._begin(wishes)
        return self._see(answer), self._info(answer)

    def step(self, action: np.ndarray):
        """Dreams one frame: (observation, 0.0, False, False, info)."""
        if self._session is None:
            raise gymnasium.error.ResetNeeded("there is no dream yet: call reset() before step().")
        values = np.asarray(action, dtype=np.float64).tolist()
        answer = self._ask("POST", f"/api/sessions/{self._session}/step", {"action": values})
        return self._see(answer), 0.0, False, False, self._info(answer)

    def render(self) -> np.ndarray | None:
        """The last observation with render_mode "rgb_array", else None."""
        return None if self.render_mode is None or self._frame is None else self._frame.copy()

    def close(self) -> None:
        """Gives the place in the server back."""
        session, self._session = self._session, None
        try:
            if session is not None:
                self._ask("DELETE", f"/api/sessions/{session}")
        except (ConnectionError, gymnasium.error.ResetNeeded):  # the server has gone, or the session has ended
            pass
        finally:
            self._connection.close()

    def _begin(self, wishes: dict) -> dict:
        if self._session is not None:
            try:
                return self._ask("POST", f"/api/sessions/{self._session}/reset", wishes)
            except gymnasium.error.ResetNeeded:  # it was idle for too long: begin another
                pass
        answer = self._ask("POST", "/api/sessions", wishes)
        self._session = answer["session"]
        return answer

    def _names(self) -> dict:
        actions = self.world["actions"]
        return {"action_names": actions["names"], "action_units": actions["units"]}

    def _see(self, answer: dict) -> np.ndarray:
        seen = answer["observation"]
        self._frame = np.frombuffer(base64.b64decode(seen["data"]), seen["dtype"]).reshape(seen["shape"])
        return self._frame.copy()

    def _info(self, answer: dict) -> dict:
        action = np.array(answer["action"], dtype=np.float32)
        return {name: answer[name] for name in ("step", "start", "seed")} | {"action": action}

    def _ask(self, method: str, path: str, message: dict | None = None) -> dict:
        """One request and its answer.

        Raises:
            ValueError: the server refuses what was sent.
            gymnasium.error.ResetNeeded: the session has ended.
            ConnectionError: no answer, or a server that is full or failing.
        """
        body = None if message is None else _to_json(message)
        status, answer = self._send(method, self._path + path, body)
        if status < 300:
            return answer
        sentence = answer.get("error", f"the server at {self.url} answers with status {status}.")
        if status == 404 and self._session is not None:
            self._session = None
            raise gymnasium.error.ResetNeeded(f"{sentence.removesuffix('begin one.')}call reset().")
        raise (ValueError if status < 500 else ConnectionError)(sentence)

    def _send(self, method: str, path: str, body: str | None) -> tuple[int, dict]:
        # A server may end a connection that has been silent for seconds; requests on a fresh one cannot meet that.
        for fresh in (self._connection.sock is None, True):
            try:
                self._connection.request(method, path, body, self._headers)
                response = self._connection.getresponse()
                data = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if fresh or not isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                    raise ConnectionError(f"no answer from {self.url} ({error}): is the server running?") from error
        try:
            return response.status, json.loads(data or b"{}")
        except ValueError:
            return response.status if response.status >= 300 else 502, {}


def _to_json(message: dict) -> str:
    try:
        return json.dumps(message, allow_nan=False)
    except ValueError as error:
        raise ValueError("the action holds a value that is not a finite number: send finite numbers.") from error
