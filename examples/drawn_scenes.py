"""Drawn robots to try the tools with, without a robot: a two-joint arm, and a gripper with two blocks.

A scene simulates episodes and draws them from one or two cameras. Frames have 96 x 72 pixels at 10 frames/s. The robot
follows its targets with a lag; actions are absolute targets, and states are what the robot measures of itself.

Shapes: T frames of an episode. Positions are in pixels of the first camera, y points down; angles in radians.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np

WIDTH, HEIGHT, FPS = 96, 72, 10
SCALE = 4
"""Frames are drawn at this multiple of their size and averaged down, which smooths edges."""
LAG = 0.35
"""Share of the distance to its target that a joint covers in one frame."""
VIEWS = {"front": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "side": ((-0.8, 0.25, 76.0), (0.1, 0.8, 8.0))}
"""Cameras: the affine map from the plane of the scene to the pixels of each. The side camera sees it mirrored, slanted
and smaller."""
BACKGROUND, LINK, JOINT = (214, 218, 222), (58, 92, 160), (232, 120, 44)
FINGER, BLOCKS = (58, 62, 74), ((206, 62, 56), (52, 146, 84))


@dataclass(frozen=True)
class SceneEpisode:
    """One simulated episode.

    Attributes:
        poses: (T,P) float32, what `draw` needs.
        states: (T,S) float32, what the robot measures in each frame.
        actions: (T,A) float32, the target that it is given in each frame.
    """

    poses: np.ndarray
    states: np.ndarray
    actions: np.ndarray


class Scene(Protocol):
    """A robot that can be simulated and drawn."""

    names: list[str]
    """Of the components of states and actions."""
    task: str

    def simulate(self, rng: np.random.Generator, num_frames: int) -> SceneEpisode:
        """Simulate one episode. The same generator state gives the same episode."""
        ...

    def draw(self, pose: np.ndarray, camera: str = "front") -> np.ndarray:
        """Draw one pose as a camera of `VIEWS` sees it: (72, 96, 3) uint8 RGB."""
        ...


class Canvas:
    """An empty frame of one camera; shapes are given in the coordinates of the scene."""

    def __init__(self, camera: str):
        self._view = np.array(VIEWS[camera])
        self._size = float(np.sqrt(abs(np.linalg.det(self._view[:, :2]))))
        self._image = np.full((HEIGHT * SCALE, WIDTH * SCALE, 3), BACKGROUND, np.uint8)

    def line(self, start: np.ndarray, end: np.ndarray, width: float, color: tuple[int, int, int]) -> None:
        cv2.line(self._image, *self._pixels([start, end]), color, self._length(width), cv2.LINE_AA)

    def disc(self, center: np.ndarray, radius: float, color: tuple[int, int, int]) -> None:
        cv2.circle(self._image, *self._pixels([center]), self._length(radius), color, -1, cv2.LINE_AA)

    def rectangle(self, center: np.ndarray, width: float, height: float, color: tuple[int, int, int]) -> None:
        corners = [center + np.array([x * width, y * height]) / 2 for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        cv2.fillPoly(self._image, [np.array(self._pixels(corners))], color, cv2.LINE_AA)

    def frame(self) -> np.ndarray:
        """Return what was drawn, (72, 96, 3) uint8 RGB."""
        return cv2.resize(self._image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)

    def _pixels(self, points: list[np.ndarray]) -> list[tuple[int, int]]:
        placed = np.array(points) @ self._view[:, :2].T + self._view[:, 2]
        return [(int(x), int(y)) for x, y in np.round(placed * SCALE)]

    def _length(self, length: float) -> int:
        return max(1, round(length * self._size * SCALE))


class Arm:
    """A two-joint arm. Its targets jump to a new place every few frames or drift slowly, as in teleoperation."""

    names = ["shoulder", "elbow"]
    task = "Move the arm."
    base = np.array([WIDTH / 2, HEIGHT - 8.0])
    lengths = (26.0, 20.0)
    joint_range = ((-2.6, -0.5), (-1.8, 1.8))

    def simulate(self, rng: np.random.Generator, num_frames: int) -> SceneEpisode:
        """See `Scene`; poses and states are the two joint angles."""
        low, high = np.array(self.joint_range).T
        angles = rng.uniform(low, high)
        target, drift = angles.copy(), np.zeros(2)
        states, actions = [], []
        for _ in range(num_frames):
            if rng.random() < 0.12:
                target, drift = rng.uniform(low, high), np.zeros(2)
            elif rng.random() < 0.15:
                drift = rng.normal(0, 0.12, 2)
            target = np.clip(target + drift, low, high)
            states.append(angles.copy())
            actions.append(target.copy())
            angles = angles + LAG * (target - angles)
        measured = np.array(states, np.float32)
        return SceneEpisode(measured, measured, np.array(actions, np.float32))

    def draw(self, pose: np.ndarray, camera: str = "front") -> np.ndarray:
        """See `Scene`."""
        canvas, points = Canvas(camera), [self.base]
        for length, angle in zip(self.lengths, np.cumsum(pose)):
            points.append(points[-1] + length * np.array([np.cos(angle), np.sin(angle)]))
        for start, end in pairwise(points):
            canvas.line(start, end, 6, LINK)
        for point in points:
            canvas.disc(point, 4, JOINT)
        return canvas.frame()


class Gripper:
    """A gripper above a table with two blocks. It carries them around, and sometimes only wanders.

    A pose is [x, y, opening, x and y of either block]; the state is the first three. A block between the closed
    fingers moves with the gripper until they open.
    """

    names = ["x", "y", "opening"]
    task = "Move the blocks."
    low, high = np.array([14.0, 16.0]), np.array([82.0, 58.0])
    block_size, closed, opened = 10.0, 4.0, 17.0
    release = 13.0
    """Opening above which a block is let go."""

    def simulate(self, rng: np.random.Generator, num_frames: int) -> SceneEpisode:
        """See `Scene`."""
        place, opening = rng.uniform(self.low, self.high), self.opened
        blocks = self._place_blocks(rng)
        target, held, plan = np.array([*place, opening]), None, []
        poses, actions = [], []
        for _ in range(num_frames):
            if not plan:
                plan = self._plan(rng, blocks)
            target, is_reached = self._towards(target, *plan[0])
            if is_reached:
                plan.pop(0)
            poses.append([*place, opening, *blocks.flatten()])
            actions.append(target.copy())
            moved = LAG * (target[:2] - place)
            place = place + moved
            opening = opening + LAG * (target[2] - opening)
            held = self._holding(held, place, opening, blocks)
            if held is not None:
                blocks[held] += moved
                opening = max(opening, self.block_size)
        poses = np.array(poses, np.float32)
        return SceneEpisode(poses, poses[:, :3].copy(), np.array(actions, np.float32))

    def _place_blocks(self, rng: np.random.Generator) -> np.ndarray:
        """Draw two places that do not overlap, (2, 2)."""
        while True:
            blocks = rng.uniform(self.low, self.high, (2, 2))
            if np.abs(blocks[0] - blocks[1]).max() > 1.5 * self.block_size:
                return blocks

    def _plan(self, rng: np.random.Generator, blocks: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
        """Draw what to do next: steps of (place, opening, pixels per frame)."""
        speed, goal = rng.uniform(3, 8), rng.uniform(self.low, self.high)
        if rng.random() < 0.25:
            return [(goal, rng.uniform(self.closed, self.opened), speed)]
        block = blocks[rng.integers(2)].copy()
        return [
            (block, self.opened, speed),
            (block, self.opened, speed),  # The gripper is behind its target: wait for it.
            (block, self.closed, speed),
            (goal, self.closed, speed),
            (goal, self.opened, speed),
        ]

    def _towards(self, target: np.ndarray, place: np.ndarray, opening: float, speed: float) -> tuple[np.ndarray, bool]:
        """Return the next target on the way, and whether it is the end of the step."""
        offset = np.array([*place, opening]) - target
        distance = float(np.linalg.norm(offset))
        return target + offset * min(1.0, speed / max(distance, 1e-6)), distance <= speed

    def _holding(self, held: int | None, place: np.ndarray, opening: float, blocks: np.ndarray) -> int | None:
        """Return the block that the gripper holds now."""
        if opening > self.release:
            return None
        if held is not None:
            return held
        distances = np.abs(blocks - place).max(axis=1)
        nearest = int(distances.argmin())
        return nearest if distances[nearest] < 4 and opening < self.block_size + 1 else None

    def draw(self, pose: np.ndarray, camera: str = "front") -> np.ndarray:
        """See `Scene`."""
        canvas, place, opening = Canvas(camera), pose[:2], pose[2]
        for block, color in zip(pose[3:].reshape(2, 2), BLOCKS):
            canvas.rectangle(block, self.block_size, self.block_size, color)
        for side in (-1, 1):
            canvas.rectangle(place + np.array([side * (opening / 2 + 2), 1]), 4, 14, FINGER)
        canvas.rectangle(place + np.array([0, -8]), opening + 8, 4, FINGER)
        canvas.disc(place + np.array([0, -10]), 4, JOINT)
        return canvas.frame()


SCENES: dict[str, Scene] = {"arm": Arm(), "gripper": Gripper()}
