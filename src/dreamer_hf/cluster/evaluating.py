"""Evaluating a world on a cluster: a batch of held-out episodes is dreamed by one worker, which keeps the world."""

import logging
from functools import partial

from torch import nn
from tqdm import tqdm

from ..data import ShardDataset
from ..evaluation.evaluate import evaluate, load_held_out
from ..evaluation.evaluation_options import EvaluationOptions, Protocol
from ..evaluation.measurements import MeasurementPlan, Measurements, join_batches, measure_batch, plan_measurement
from ..evaluation.open_loop import DREAM
from ..image_metrics import load_lpips
from ..modeling_dreamer_world import DreamerWorldModel
from .connection import connected
from .node_checks import check_nodes, nodes_with_cores
from .worker import Stage, Work
from .worker_pool import WorkerPool

logger = logging.getLogger(__name__)
NEEDS = ("torch", "transformers", "h5py", "hdf5plugin", "pyarrow", "xxhash")


def evaluate_on_cluster(options: EvaluationOptions) -> str:
    """Do what `evaluate` does on the cluster `options.ray`.

    Raises:
        OSError, ValueError: as `evaluate`; or there is no such cluster, or one on which the work cannot be done.
    """
    with connected(options.ray):
        check_nodes(nodes_with_cores(), NEEDS)
        return evaluate(options, partial(measure_on_cluster, options))


def measure_on_cluster(
    options: EvaluationOptions,
    world: DreamerWorldModel,
    data: ShardDataset,
    protocol: Protocol,
    perceptual: nn.Module | None = None,
) -> Measurements:
    """Do what `measure_world` does with the workers of the cluster that this process is connected to.

    Args:
        options: by which the workers load the world, the data and the perceptual metric.
        world, data, protocol, perceptual: as for `measure_world`.
    """
    plan = plan_measurement(world, data, protocol)
    stage = Stage(prepare_evaluator, (options, plan, world.tokenizer.fingerprint()), NEEDS, uses_gpu=True)
    parts = {}
    bar = tqdm(total=plan.num_frames, desc="dreaming", unit="frame")
    with bar, WorkerPool(stage, len(plan.batches)) as pool:
        if len(plan.batches) < pool.room():
            logger.warning(
                f"{len(plan.batches)} batches are less than the {pool.room()} workers of the cluster: a smaller "
                "--batch_size keeps more of them busy."
            )

        def show(status) -> None:
            bar.set_postfix_str(str(status), refresh=False)
            bar.update(status.frames - bar.n)

        for start, part in pool.run(plan.batches, show):
            parts[start] = part
    return join_batches(world, plan, [parts[start] for start in plan.batches])


def prepare_evaluator(options: EvaluationOptions, plan: MeasurementPlan, fingerprint: str) -> Work:
    """Return the work of a unit (the first episode of a batch): its `BatchMeasurements`.

    Raises:
        ValueError: this node has another world of that name.
    """
    world, data = load_held_out(options)
    if world.tokenizer.fingerprint() != fingerprint:
        raise ValueError(f"{options.model} is another world here than where the command runs: give a shared folder.")
    perceptual = load_lpips(options.lpips_net, world.device)

    def work(start: int):
        frames = 0

        def count() -> None:
            nonlocal frames
            frames += 1

        part = measure_batch(world, data, plan, start, perceptual, count)
        yield frames, len(part.values["mse"][DREAM])
        return part

    return work


__all__ = ["evaluate_on_cluster", "measure_on_cluster", "prepare_evaluator"]
