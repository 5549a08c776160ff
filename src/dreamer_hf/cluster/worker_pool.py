"""A pool of workers over all nodes of a cluster: hands out units, and hands them out again when a node dies.

Every worker has one unit at a time, so the memory of this process depends on the number of workers and not on the
number of units. When a worker dies, with its node or alone, its unit goes to another one. Nodes that join get workers.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from ..data.files import first_line
from ..extras import EXTRAS
from .node_checks import FolderProbe, check_nodes, node_name, nodes_with_cores
from .worker import Report, Stage, Worker

logger = logging.getLogger(__name__)
MAX_TRIES = 4
"""How often a unit is started before the pool gives up: what kills four workers would kill the next one."""
POLL_SECONDS = 0.5
GROW_SECONDS = 2.0
NO_NODES_SECONDS = 60.0
"""How long to wait for a node with room for a worker if there is none."""


@dataclass
class PoolStatus:
    """How far a pool is.

    Attributes:
        frames, episodes: done, by finished units and by running ones.
        workers, nodes: at work now.
        retries: how often a unit was started again.
    """

    frames: int = 0
    episodes: int = 0
    workers: int = 0
    nodes: int = 0
    retries: int = 0

    def __str__(self) -> str:
        parts = [_count(self.nodes, "node"), _count(self.workers, "worker")]
        return ", ".join([*parts, _count(self.retries, "retry", "retries")] if self.retries else parts)


@dataclass(eq=False)
class _Member:
    """One worker, from its start to its end.

    Attributes:
        actor: the worker.
        node: a name of its node, for people; "" until it is known.
        pending: what is awaited of it: a reference while it prepares, a generator while it is at a unit.
        unit, tries: what it does, and how often that was started.
        frames, episodes: of this unit so far.
    """

    actor: Any
    pending: Any = None
    node: str = ""
    unit: Any = None
    tries: int = 0
    frames: int = 0
    episodes: int = 0

    @property
    def is_ready(self) -> bool:
        return bool(self.node)


class _Units:
    """The units that are left: those that have to be done again, then the others, which are drawn one by one."""

    def __init__(self, units: Iterable):
        self._again: list[tuple[Any, int]] = []
        self._rest = iter(units)
        self._drawn: list = []

    def __bool__(self) -> bool:
        if not self._again and not self._drawn:
            self._drawn = [unit for _, unit in zip(range(1), self._rest)]
        return bool(self._again or self._drawn)

    def take(self) -> tuple[Any, int]:
        """Return a unit and how often it was started before. There must be one."""
        return self._again.pop() if self._again else (self._drawn.pop(), 0)

    def put_back(self, unit, tries: int) -> None:
        """Have a unit done again."""
        self._again.append((unit, tries))


@dataclass
class WorkerPool:
    """Workers for one stage; a context manager, at whose end they end.

    Args:
        stage: what they do.
        max_workers: their largest number. Defaults to what the cluster has room for.
        probe: of the output folder, which nodes that join have to share, too.

    Attributes:
        status: of the current run.
    """

    stage: Stage
    max_workers: int | None = None
    probe: FolderProbe | None = None

    def __post_init__(self):
        self.status = PoolStatus()
        self._members: list[_Member] = []
        self._names: dict[str, str] = {}  # of the nodes that were checked
        self._grown_at = self._had_room_at = 0.0
        self._failed_starts = 0
        self._arguments = [ray.put(argument) for argument in self.stage.arguments]

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *error) -> None:
        for member in self._members:
            ray.kill(member.actor)
        self._members.clear()

    def room(self) -> int:
        """Return how many workers the cluster has room for."""
        nodes = nodes_with_cores()
        return sum(_room(node, worker_resources(self.stage, nodes)) for node in nodes)

    def run(
        self, units: Iterable, show: Callable[[PoolStatus], object] = lambda status: None
    ) -> Iterator[tuple[Any, Any]]:
        """Do all units; yield each with its result when it is done.

        Args:
            units: plain data; drawn from the iterable as workers become free.
            show: called about twice a second.

        Raises:
            ValueError, OSError: a unit cannot be done, or no node can do any; one sentence says why.
        """
        left, self.status, self._had_room_at = _Units(units), PoolStatus(), time.monotonic()
        while left or self._busy:
            self._grow(left)
            for member in self._members:
                if member.is_ready and member.pending is None and left:
                    self._start(member, *left.take())
            for member in self._wait():
                report = self._next_report(member, left)
                if report is not None and report.is_last:
                    unit, member.unit, member.pending = member.unit, None, None
                    yield unit, report.result
            self._update_status()
            show(self.status)

    @property
    def _busy(self) -> bool:
        return any(member.unit is not None for member in self._members)

    def _grow(self, left: _Units) -> None:
        """Start workers where there is room, as long as there are units that no worker has."""
        if time.monotonic() - self._grown_at < GROW_SECONDS:
            return
        self._grown_at = time.monotonic()
        nodes = nodes_with_cores()
        new = [node for node in nodes if node["NodeID"] not in self._names]
        if new:
            check_nodes(new, self.stage.needs, self.probe)
            self._names |= {node["NodeID"]: node_name(node) for node in new}
        request = worker_resources(self.stage, nodes)
        room = sum(_room(node, request) for node in nodes)
        if room:
            self._had_room_at = time.monotonic()
        elif time.monotonic() - self._had_room_at > NO_NODES_SECONDS:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in request.items())
            raise OSError(f"no node of the Ray cluster offers {wanted}: add a node, then run again with --resume.")
        if any(member.unit is None for member in self._members) or not left:
            return  # Somebody is free, or will be soon.
        options = {"num_cpus": request["CPU"], "num_gpus": request.get("GPU", 0), "scheduling_strategy": "SPREAD"}
        actor = ray.remote(max_restarts=0, max_task_retries=0, **options)(Worker)
        for _ in range(min(room, self.max_workers or room) - len(self._members)):
            member = _Member(actor.remote(logger.getEffectiveLevel(), os.getcwd()))
            member.pending = member.actor.prepare.remote(self.stage.prepare, *self._arguments)
            self._members.append(member)

    def _start(self, member: _Member, unit, tries: int) -> None:
        member.unit, member.tries, member.frames, member.episodes = unit, tries + 1, 0, 0
        member.pending = member.actor.run.options(num_returns="streaming").remote(unit)

    def _wait(self) -> list[_Member]:
        """Return the workers that have something to say, after half a second at the latest."""
        awaited = {member.pending: member for member in self._members if member.pending is not None}
        if not awaited:
            time.sleep(POLL_SECONDS)
            return []
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(list(awaited), num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        return [awaited[each] for each in ready]

    def _next_report(self, member: _Member, left: _Units) -> Report | None:
        """Return the next report of a worker; None if it has just become ready, or has died."""
        try:
            if not member.is_ready:
                node = ray.get(member.pending)
                member.node, member.pending, self._failed_starts = self._names[node], None, 0
                return None
            report = ray.get(next(member.pending))
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, MemoryError):
                raise _in_one_sentence(error, member.node) from error
            self._lose(member, left)
            return None
        except (ray.exceptions.RayError, StopIteration):
            self._lose(member, left)
            return None
        member.frames += report.counts[0]
        member.episodes += report.counts[1]
        self.status.frames += report.counts[0]
        self.status.episodes += report.counts[1]
        return report

    def _lose(self, member: _Member, left: _Units) -> None:
        """Drop a worker that has died; another one does its unit."""
        self._members.remove(member)
        ray.kill(member.actor)  # It may only be out of reach, and must not continue.
        self._failed_starts += not member.is_ready
        if member.tries >= MAX_TRIES or self._failed_starts >= MAX_TRIES:
            raise OSError(
                f"{MAX_TRIES} workers died at the same work, probably because memory ran out: look at the logs of "
                "Ray, then run again with --resume and fewer --num_workers."
            )
        if member.unit is not None:
            self.status.frames -= member.frames
            self.status.episodes -= member.episodes
            self.status.retries += 1
            logger.warning(f"a worker on node {member.node} died: another one does its work.")
            left.put_back(member.unit, member.tries)

    def _update_status(self) -> None:
        busy = [member for member in self._members if member.unit is not None]
        self.status.workers, self.status.nodes = len(busy), len({member.node for member in busy})


def worker_resources(stage: Stage, nodes: list[dict]) -> dict[str, float]:
    """Return what a worker of a stage takes of a node, by Ray's names."""
    has_gpus = any(node["Resources"].get("GPU") for node in nodes)
    return {"CPU": 1.0, "GPU": 1.0} if stage.uses_gpu and has_gpus else {"CPU": stage.num_cpus}


def _room(node: dict, request: dict[str, float]) -> int:
    """Return how many workers a node has room for."""
    return int(min(node["Resources"].get(name, 0) // amount for name, amount in request.items()))


def _in_one_sentence(error: ray.exceptions.RayTaskError, node: str) -> Exception:
    """Return what a worker raised: bad input as one sentence that names the node, anything else unchanged."""
    cause = error.cause
    if isinstance(cause, ModuleNotFoundError) and cause.name and cause.name.partition(".")[0] in EXTRAS:
        module = cause.name.partition(".")[0]
        return ValueError(f"node {node} lacks {module}: pip install 'dreamer_hf[{EXTRAS[module]}]' there.")
    where = f"on node {node}: " if node else ""
    if isinstance(cause, OSError):
        return OSError(f"{where}{first_line(cause)}")
    if isinstance(cause, ValueError):
        return ValueError(f"{where}{first_line(cause)}")
    return error


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


__all__ = ["PoolStatus", "WorkerPool", "worker_resources"]
