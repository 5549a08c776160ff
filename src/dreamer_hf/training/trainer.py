"""The training loop that both scripts share, on Accelerate."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm

from ..data import ShardDataset
from ..losses import LossNormalizer
from ..media import save_image
from .arguments import TrainerArguments
from .batches import BatchStream
from .checkpoints import (
    ARGUMENTS_FILE,
    PATHS_FILE,
    TrainerState,
    check_same_run,
    leave_out_what_is_frozen,
    list_checkpoints,
    publish,
    read_state,
    save_checkpoint,
)
from .finetune import has_adapter
from .optimizers import averaged_model, build_optimizers, compile_layers, learning_rate_factor, set_learning_rate
from .publish import FinishedRun, write_final_folder
from .randomness import RowNumbers
from .run_metrics import MetricsLog

MAX_NAMED_EPISODES = 64
WANDB_SETTINGS = {"settings": {"x_disable_meta": True, "disable_git": True, "console": "off"}}
"""Of itself, W&B uploads the command line, what the process prints and the machine's name: private paths among them."""

Batch = dict[str, torch.Tensor]
Scalars = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out data.

    Attributes:
        values: numbers, by the names that they are logged under.
        pictures: uint8 (height, width, 3) RGB, by their names.
        film: what moves, as pictures of one size; empty if nothing does.
    """

    values: dict[str, float]
    pictures: dict[str, np.ndarray]
    film: list[np.ndarray] = field(default_factory=list)


class Objective(Protocol):
    """What is trained, and on what. `Trainer` knows nothing else about it.

    Attributes:
        model: the model to train, a `PreTrainedModel`.
        loss_weights: weight of every loss term; each term is also divided by its running RMS.
        stream: where its batches come from.
        train_data, test_data: the episodes trained on, and those held out.
        identity: what a run of it must go on with, beside its data, by the words that name it.
        autocast: opens the run's precision for what is computed beside the model; the trainer sets it.
    """

    model: nn.Module
    loss_weights: dict[str, float]
    stream: BatchStream
    train_data: ShardDataset
    test_data: ShardDataset
    identity: dict[str, str]
    autocast: Callable[[], AbstractContextManager]

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """Batches of this process on its device, for ever, from the first batch of an optimizer step on."""

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """Loss terms, and further values to log, NaN where the batch has none of the kind; means over the batch."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measures the model on held-out data. Every process calls it."""

    def save(self, folder: Path, model: nn.Module, state_dict: Batch) -> None:
        """Writes the final model, ready for `from_pretrained`. Only the main process calls it."""

    def summary(self, values: dict[str, float]) -> str:
        """Turns the values of the last evaluation into what to tell the user at the end, perhaps a warning."""


class Trainer:
    """Trains an objective's model: accumulates, clips, averages, logs, evaluates, saves and resumes.

    Every random draw depends on the seed and the number of the row that it is for (`randomness`), the data order on
    the seed and the step, the learning rate on the step (and on the time, with `max_train_minutes`). So a run that
    was killed and resumed goes through the same losses as one that was not.
    """

    def __init__(self, accelerator: Accelerator, arguments: TrainerArguments, objective: Objective):
        self.accelerator, self.arguments, self.objective = accelerator, arguments, objective
        self.output_dir = Path(arguments.output_dir)
        self.log = MetricsLog(self.output_dir / "metrics.jsonl")
        self.normalizer = LossNormalizer(objective.loss_weights)
        self.step, self.seconds = 0, 0.0
        objective.autocast = accelerator.autocast
        model = objective.model
        if arguments.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if arguments.torch_compile:
            compile_layers(model)
        self.average = averaged_model(model, arguments.ema_decay) if arguments.ema_decay else None
        optimizers = build_optimizers(model, arguments)
        self.model, *self.optimizers = accelerator.prepare(model, *optimizers)
        if has_adapter(model):
            leave_out_what_is_frozen(accelerator)
        accelerator.register_for_checkpointing(self.normalizer)
        if self.average is not None:
            self.average.to(accelerator.device)
            accelerator.register_for_checkpointing(self.average)

    def train(self, checkpoint: Path | None = None) -> list[str]:
        """Runs the whole training, from a checkpoint on if one is given, and leaves the final model.

        Returns the names of the files that make up the result and may be shared; none in other processes than the main
        one.

        Raises:
            ValueError: the loss or its gradient is not a finite number, or the checkpoint is of another run.
            OSError: the disk is full or not writable.
        """
        if checkpoint is not None:
            self._resume(checkpoint)
        self._open_output_dir()
        batches = self.objective.batches(self.step)
        with self._progress_bar() as bar:
            evaluation = self._evaluate(bar) if self._is_over else None
            while not self._is_over:
                metrics = self._optimizer_step(batches)
                bar.update(1)
                bar.set_postfix_str(self._news(metrics))
                if self._is_due(self.arguments.eval_steps):
                    evaluation = self._evaluate(bar)
                    self._record(metrics | evaluation.values)
                elif self._is_due(self.arguments.logging_steps):
                    self._record(metrics)
                if self._is_due(self.arguments.checkpointing_steps):
                    self._save_checkpoint()
        return self._finish(evaluation)

    def _resume(self, checkpoint: Path) -> None:
        saved = read_state(checkpoint)
        check_same_run(saved, self._state(), checkpoint, type(self.objective.model.config)().to_dict())
        self.accelerator.load_state(str(checkpoint), strict=not has_adapter(self.objective.model))
        self.step, self.seconds = saved.step, saved.seconds
        self.accelerator.print(f"resuming from {checkpoint}")

    def _open_output_dir(self) -> None:
        public = self.arguments.public_values()
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            values = dataclasses.asdict(self.arguments)
            private = {name: value for name, value in values.items() if name not in public}
            (self.output_dir / ARGUMENTS_FILE).write_text(json.dumps(public, indent=2) + "\n")
            (self.output_dir / PATHS_FILE).write_text(json.dumps(private, indent=2) + "\n")
            self.log.truncate(self.step)
        simple = {key: value if isinstance(value, int | float) else str(value) for key, value in public.items()}
        wandb = {"dir": str(self.output_dir), **WANDB_SETTINGS}
        self.accelerator.init_trackers("dreamer_hf", config=simple, init_kwargs={"wandb": wandb})

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=None if self.arguments.max_train_minutes else self.arguments.max_train_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )

    def _news(self, metrics: dict[str, float]) -> str:
        """What stands beside the bar, which counts steps: also the time left, where time ends the run."""
        news = f"loss {metrics['loss']:.4g}, {metrics['frames_per_second']:.0f} frames/s"
        if self.arguments.max_train_minutes is None:
            return news
        return f"{news}, {max(0.0, self.arguments.max_train_minutes - self.seconds / 60):.1f} min left"

    @property
    def _progress(self) -> float:
        """Part of the run that is over: of its steps or of its minutes, whichever is further."""
        by_steps = self.step / self.arguments.max_train_steps
        if self.arguments.max_train_minutes is None:
            return by_steps
        return max(by_steps, self.seconds / (60 * self.arguments.max_train_minutes))

    @property
    def _is_over(self) -> bool:
        return self._progress >= 1

    def _is_due(self, every: int) -> bool:
        return self._is_over or (every > 0 and self.step % every == 0)

    def _optimizer_step(self, batches: Iterator[tuple[Batch, RowNumbers]]) -> dict[str, float]:
        """One step over all accumulated batches; returns what there is to log about it."""
        started = time.perf_counter()
        arguments = self.arguments
        factor = learning_rate_factor(
            self.step, self._progress, arguments.lr_warmup_steps, arguments.min_learning_rate_ratio
        )
        set_learning_rate(self.optimizers, arguments, factor)
        self.model.train()
        terms, extras, frames = [], [], 0
        for _ in range(arguments.gradient_accumulation_steps):
            batch, rows = next(batches)
            frames += batch["actions"].shape[:2].numel()
            with self.accelerator.accumulate(self.model):
                batch_terms, batch_extras = self._backward(batch, rows)
                terms.append(batch_terms)
                extras.append(batch_extras)
                if self.accelerator.sync_gradients:
                    losses = self._gathered(terms).mean(dim=0).tolist()
                    norm = self._clipped_norm(losses)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        losses = dict(zip(terms[0], losses))
        self.normalizer.observe(losses)
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.step += 1
        seconds = self._agreed(time.perf_counter() - started)
        self.seconds += seconds
        return {
            "loss": sum(self.objective.loss_weights[name] * value for name, value in losses.items()),
            **losses,
            **(dict(zip(extras[0], self._gathered(extras).nanmean(dim=0).tolist())) if extras[0] else {}),
            "grad_norm": norm,
            "learning_rate": arguments.learning_rate * factor,
            "frames_per_second": frames * self.accelerator.num_processes / seconds,
        }

    def _backward(self, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        terms, extras = self.objective.losses(self.model, batch, rows)
        if not self.normalizer.has_observed:  # the very first batch sets the scale
            self.normalizer.observe(dict(zip(terms, self._gathered([terms]).mean(dim=0).tolist())))
        self.accelerator.backward(self.normalizer.total(terms))
        return {name: term.detach() for name, term in terms.items()}, extras

    def _gathered(self, scalars: list[Scalars]) -> torch.Tensor:
        """Scalars of several batches -> (batches of all processes, names)."""
        table = torch.stack([torch.stack([value.detach().float() for value in row.values()]) for row in scalars])
        return self.accelerator.gather(table)

    def _clipped_norm(self, losses: list[float]) -> float:
        """Clips the gradient, and stops before NaN overwrites weights that are still good."""
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm))
        # With fp16 a gradient that overflows is normal: the gradient scaler skips that step.
        checked = losses if self.accelerator.scaler is not None else [*losses, norm]
        if all(math.isfinite(value) for value in checked):
            return norm
        checkpoints = list_checkpoints(self.output_dir)
        last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
        episodes = sorted(set(gather_object(self.objective.stream.episodes(self.step))))
        shown = ", ".join(map(str, episodes[:MAX_NAMED_EPISODES]))
        more = f" and {len(episodes) - MAX_NAMED_EPISODES} more" if len(episodes) > MAX_NAMED_EPISODES else ""
        raise ValueError(
            f"the loss or its gradient is not a finite number at step {self.step + 1}, on the episodes {shown}{more} (as "
            f"the shards count them); {last}: look for NaN in these episodes, or lower --learning_rate."
        )

    def _agreed(self, seconds: float) -> float:
        """One duration for all processes: they must stop at the same step. Only a time limit makes it matter."""
        if self.arguments.max_train_minutes is None:
            return seconds
        return float(self.accelerator.reduce(torch.tensor(seconds, device=self.accelerator.device), "mean"))

    def _final_model(self) -> nn.Module:
        """The model to evaluate and to keep: the averaged one, if there is an average."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def _evaluate(self, bar: tqdm) -> Evaluation:
        model = self._final_model()
        model.eval()
        # Compiling anew for the shapes of an evaluation would take longer than it does.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            evaluation = self.objective.evaluate(model)
        if self.accelerator.is_main_process:
            values = ", ".join(
                f"{name.removeprefix('eval_')} {value:.4g}" for name, value in evaluation.values.items()
            )
            bar.write(f"step {self.step}: {values}", file=sys.stderr)
            for name, picture in evaluation.pictures.items():
                save_image(self.output_dir / "pictures" / f"{name}-{self.step:07d}.png", picture)
        for tracker in self.accelerator.trackers:
            # TensorBoard must be told the order of the axes; the others know it.
            order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: p[None] for name, p in evaluation.pictures.items()}, step=self.step, **order)
        return evaluation

    def _record(self, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.log.append(self.step, metrics)
        self.accelerator.log(metrics, step=self.step)

    def _state(self) -> TrainerState:
        arguments, config = self.arguments, self.objective.model.config.to_diff_dict()
        for name in ("transformers_version", "dtype", "architectures"):
            config.pop(name, None)
        config |= arguments.adaptation_values()
        rows = arguments.per_device_batch_size * arguments.gradient_accumulation_steps * self.accelerator.num_processes
        data = self.objective.train_data
        run = {"optimizer": arguments.optimizer, "averaged weights": self.average is not None}
        run |= {
            "training episodes": data.num_episodes,
            "training frames": int(data.episode_lengths.sum()),
            **self.objective.identity,
        }
        return TrainerState(self.step, self.seconds, arguments.seed, rows, json.loads(json.dumps(config)), run)

    def _save_checkpoint(self) -> None:
        save_checkpoint(self.accelerator, self.output_dir, self._state(), self.arguments.checkpoints_total_limit)

    def _finish(self, evaluation: Evaluation) -> list[str]:
        weights = self.accelerator.get_state_dict(self.model)
        training = (
            f"{self.step:,} steps of {self._state().rows_per_step} rows in {self.seconds / 60:.1f} minutes. The keys are in "
            f"`{ARGUMENTS_FILE}`, the curves in `{self.log.path.name}`."
        )
        run = FinishedRun(self.objective, self.arguments, self._final_model(), weights, evaluation, training)
        names = []
        if self.accelerator.is_main_process:
            with torch.compiler.set_stance("force_eager"):  # as in `_evaluate`
                names = publish(self.output_dir, lambda folder: write_final_folder(folder, run))
            names += [ARGUMENTS_FILE, self.log.path.name]
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        self.accelerator.print(self.objective.summary(evaluation.values))
        return names
