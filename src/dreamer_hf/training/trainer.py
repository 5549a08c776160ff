"""The training loop of tokenizers and dynamics models, on Accelerate."""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule
from tqdm import tqdm

from ..losses import FixedLossScale, LossNormalizer
from ..media import save_image
from ..threads import choose_threads
from .argument_parsing import ARGUMENTS_FILE
from .arguments import TrainingArguments
from .checkpoints import (
    TrainerState,
    check_same_run,
    list_checkpoints,
    load_checkpoint,
    publish_files,
    read_state,
    save_arguments,
    save_checkpoint,
    save_trainable_only,
)
from .finetune import has_adapter
from .objective import Batch, Evaluation, Objective, Scalars
from .optimizers import averaged_model, build_optimizers, compile_layers, learning_rate_factor, set_learning_rate
from .publish import FinishedRun, write_final_folder
from .randomness import RowNumbers
from .run_metrics import MetricsLog, Speed, format_duration

MAX_NAMED_EPISODES = 64
TRACE_FILE = "trace.json"
TRACED_FROM = 2
"""Number of steps before the ones that `--profile` traces: the first ones allocate memory and compile."""
TIMED_STEPS = range(2, 6)
"""Steps of a run, counted from its start, whose durations the estimate of the whole run is made from."""
WANDB_SETTINGS = {"settings": {"x_disable_meta": True, "disable_git": True, "console": "off"}}
"""By default, W&B uploads the command line, the console output and the machine's name, which hold private paths."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains an objective's model: accumulates, clips, averages, logs, evaluates, saves and resumes.

    Every random draw depends on the seed and the number of the row that it is for (`randomness`), the data order on
    the seed and the step, the learning rate on the step (and on the time, with `max_train_minutes`). So a run that
    was killed and resumed has the same losses as one that was not.
    """

    def __init__(self, accelerator: Accelerator, arguments: TrainingArguments, objective: Objective):
        self.accelerator, self.arguments, self.objective = accelerator, arguments, objective
        self.output_dir = Path(arguments.run.output_dir)
        self.log = MetricsLog(self.output_dir / "metrics.jsonl")
        scale = LossNormalizer if objective.normalizes_losses else FixedLossScale
        self.normalizer = scale(objective.loss_weights)
        self.step, self.seconds = 0, 0.0
        self._is_interrupted = False
        objective.autocast = accelerator.autocast
        model, decay = objective.model, arguments.optimizer.ema_decay
        if arguments.run.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if arguments.run.torch_compile:
            compile_layers(model)
        self.average = averaged_model(model, decay) if decay else None
        optimizers = build_optimizers(model, arguments.optimizer)
        self.model, *self.optimizers = accelerator.prepare(model, *optimizers)
        if has_adapter(model):
            save_trainable_only(accelerator)
        if self.average is not None:
            self.average.to(accelerator.device)

    def train(self, checkpoint: Path | None = None) -> list[str]:
        """Run the whole training, from a checkpoint on if one is given, and write the final model.

        Returns the names of the files that make up the result and may be shared; none in other processes than the main
        one.

        Raises:
            ValueError: the loss or its gradient is not a finite number, or the checkpoint belongs to another run.
            OSError: the disk is full or not writable.
        """
        if checkpoint is not None:
            self._resume(checkpoint)
        self._choose_threads()
        self._open_output_dir()
        self.speed = Speed(
            self.accelerator.device,
            PRECISIONS.get(self.accelerator.mixed_precision, torch.float32),
            self.accelerator.num_processes,
        )
        first_step, batches = self.step, self.objective.batches(self.step)
        durations = []
        with self._progress_bar() as bar, self._profiler() as profiler, self._interruptible():
            evaluation = self._evaluate(bar) if self._is_over else None
            while not self._is_over:
                if self._is_interrupted:
                    raise KeyboardInterrupt
                metrics, seconds = self._optimizer_step(batches)
                bar.update(1)
                bar.set_postfix_str(self._status(metrics))
                if self.step - first_step in TIMED_STEPS:
                    durations.append(seconds)
                if self.step - first_step == TIMED_STEPS[-1]:
                    self._print(bar, self._estimate(durations))
                if profiler is not None:
                    profiler.step()
                if self._is_due(self.arguments.run.eval_steps):
                    evaluation = self._evaluate(bar)
                    self._record(metrics | evaluation.values)
                elif self._is_due(self.arguments.run.logging_steps):
                    self._record(metrics)
                if self._is_due(self.arguments.run.checkpointing_steps):
                    self._save_checkpoint()
        return self._finish(evaluation)

    def _resume(self, checkpoint: Path) -> None:
        saved = read_state(checkpoint)
        check_same_run(saved, self._state(), checkpoint, type(self.objective.model.config)().to_dict())
        is_strict = not has_adapter(self.objective.model)
        load_checkpoint(self.accelerator, checkpoint, self.average, is_strict)
        try:
            self.normalizer.load_state_dict(saved.normalizer)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} is damaged ({error}): move it away to resume from an earlier one."
            ) from error
        self.step, self.seconds = saved.step, saved.seconds
        self.accelerator.print(f"resuming from {checkpoint}")

    def _choose_threads(self) -> None:
        """Set the number of CPU threads, which a resumed run takes over: another number would round differently."""
        run = self.arguments.run
        is_measurable = self.accelerator.device.type == "cpu" and self.accelerator.num_processes == 1
        if run.threads is None and not is_measurable:
            return
        batch, rows = self.objective.stream.trial_batch() if run.threads is None else (None, None)

        def work() -> None:
            terms, _ = self.objective.losses(self.model, batch, rows)
            sum(terms.values()).backward()
            self.model.zero_grad()

        choice = choose_threads(work, run.threads)
        run.threads = choice.threads
        if choice.seconds:
            self.accelerator.print(f"Using {choice}; --threads N sets another number.")

    def _open_output_dir(self) -> None:
        if self.accelerator.is_main_process:
            save_arguments(self.output_dir, self.arguments)
            self.log.truncate(self.step)
        public = self.arguments.public_values()
        simple = {name: value if isinstance(value, int | float) else str(value) for name, value in public.items()}
        wandb = {"dir": str(self.output_dir), **WANDB_SETTINGS}
        self.accelerator.init_trackers("dreamer_hf", config=simple, init_kwargs={"wandb": wandb})

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=None if self.arguments.run.max_train_minutes else self.arguments.run.max_train_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )

    def _print(self, bar: tqdm, text: str) -> None:
        if self.accelerator.is_main_process:
            bar.write(text, file=sys.stderr)

    def _status(self, metrics: dict[str, float]) -> str:
        """Return what is shown next to the bar, which counts steps: also the time left, if time ends the run."""
        status = f"loss {metrics['loss']:.4g}, {metrics['frames_per_second']:.0f} frames/s, MFU {metrics['mfu']:.0%}"
        if self.arguments.run.max_train_minutes is None:
            return status
        return f"{status}, {max(0.0, self.arguments.run.max_train_minutes - self.seconds / 60):.1f} min left"

    def _estimate(self, durations: list[float]) -> str:
        """Return how long the rest of the run will take, judging by the duration of a few steps.

        Later steps may do more work (bootstrap rows), in proportion to which they take longer.
        """
        last, minutes = self.arguments.run.max_train_steps, self.arguments.run.max_train_minutes
        per_flop = np.mean(durations) / self._expected_flops(self.step - 1)
        sample = np.unique(np.linspace(self.step, last - 1, 50).astype(int)) if last > self.step else []
        seconds = per_flop * np.mean([self._expected_flops(step) for step in sample]) if len(sample) else 0.0
        rest = (last - self.step) * seconds
        if minutes is None or self.seconds + rest < 60 * minutes:
            left = f"about {format_duration(rest)} left for {last - self.step:,} steps"
            return f"{left} on this machine, without evaluations"
        steps = self.step + int((60 * minutes - self.seconds) / seconds)
        return f"--max_train_minutes ends this run after {minutes:g} minutes, at about step {steps:,} on this machine"

    def _expected_flops(self, step: int) -> float:
        """Return the operations of an optimizer step, as a mean over the kinds of batches."""
        kinds = self.objective.stream.kinds
        per_batch = sum(k.share * self.objective.flops(k.batch_size, k.window_size, step) for k in kinds)
        return per_batch * self.arguments.optimizer.gradient_accumulation_steps

    def _profiler(self) -> AbstractContextManager:
        """Return the recorder of `--profile` steps of the main process; chrome://tracing and Perfetto open traces."""
        if self.arguments.run.profile is None or not self.accelerator.is_main_process:
            return nullcontext()
        activities = [ProfilerActivity.CPU]
        if self.accelerator.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        return profile(
            activities=activities,
            schedule=schedule(wait=TRACED_FROM - 1, warmup=1, active=self.arguments.run.profile, repeat=1),
            acc_events=True,
            on_trace_ready=lambda recorded: recorded.export_chrome_trace(str(self.output_dir / TRACE_FILE)),
        )

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Make Ctrl-C end the run even if it arrives in a callback whose exceptions Python ignores."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number, frame):
            self._is_interrupted = True
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def _progress(self) -> float:
        """The finished part of the run: of its steps or of its minutes, whichever is larger."""
        by_steps = self.step / self.arguments.run.max_train_steps
        if self.arguments.run.max_train_minutes is None:
            return by_steps
        return max(by_steps, self.seconds / (60 * self.arguments.run.max_train_minutes))

    @property
    def _is_over(self) -> bool:
        return self._progress >= 1

    def _is_due(self, every: int) -> bool:
        return self._is_over or (every > 0 and self.step % every == 0)

    def _optimizer_step(self, batches: Iterator[tuple[Batch, RowNumbers]]) -> tuple[dict[str, float], float]:
        """Take one step over all accumulated batches; return its metrics and its duration in seconds."""
        started = time.perf_counter()
        options = self.arguments.optimizer
        factor = learning_rate_factor(
            self.step, self._progress, options.lr_warmup_steps, options.min_learning_rate_ratio
        )
        set_learning_rate(self.optimizers, options, factor)
        self.model.train()
        terms, extras, frames, flops = [], [], 0, 0.0
        for _ in range(options.gradient_accumulation_steps):
            batch, rows = next(batches)
            num_rows, num_frames = batch["actions"].shape[:2]
            frames += num_rows * num_frames
            flops += self.objective.flops(num_rows, num_frames, self.step)
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
        metrics = {
            "loss": sum(self.objective.loss_weights[name] * value for name, value in losses.items()),
            **losses,
            **(dict(zip(extras[0], self._gathered(extras).nanmean(dim=0).tolist())) if extras[0] else {}),
            "grad_norm": norm,
            "learning_rate": options.learning_rate * factor,
            **self.speed.metrics(frames, flops, seconds),
        }
        return metrics, seconds

    def _backward(self, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        terms, extras = self.objective.losses(self.model, batch, rows)
        if not self.normalizer.has_observed:  # The very first batch sets the scale.
            self.normalizer.observe(dict(zip(terms, self._gathered([terms]).mean(dim=0).tolist())))
        self.accelerator.backward(self.normalizer.total(terms))
        return {name: term.detach() for name, term in terms.items()}, extras

    def _gathered(self, scalars: list[Scalars]) -> torch.Tensor:
        """Gather the scalars of several batches: (batches of all processes, names)."""
        table = torch.stack([torch.stack([value.detach().float() for value in row.values()]) for row in scalars])
        return self.accelerator.gather(table)

    def _clipped_norm(self, losses: list[float]) -> float:
        """Clip the gradient and return its norm, but raise before NaN overwrites weights that are still good."""
        limit = self.arguments.optimizer.max_grad_norm
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
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
            f"the loss or its gradient is not a finite number at step {self.step + 1}, on the episodes {shown}{more} "
            f"(as the shards count them); {last}: look for NaN in these episodes, or lower --learning_rate."
        )

    def _agreed(self, seconds: float) -> float:
        """Return one duration for all processes: with a time limit, they must stop at the same step."""
        if self.arguments.run.max_train_minutes is None:
            return seconds
        return float(self.accelerator.reduce(torch.tensor(seconds, device=self.accelerator.device), "mean"))

    def _final_model(self) -> nn.Module:
        """Return the model to evaluate and to keep: the averaged one, if there is an average."""
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def _evaluate(self, bar: tqdm) -> Evaluation:
        model = self._final_model()
        model.eval()
        # Compiling again for the shapes of an evaluation would take longer than the evaluation.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            evaluation = self.objective.evaluate(model)
        if self.accelerator.is_main_process:
            values = ", ".join(
                f"{name.removeprefix('eval_')} {value:.4g}" for name, value in evaluation.values.items()
            )
            self._print(bar, f"step {self.step}: {values}")
            for name, image in evaluation.images.items():
                save_image(self.output_dir / "images" / f"{name}-{self.step:07d}.png", image)
        for tracker in self.accelerator.trackers:
            # TensorBoard needs to know the order of the axes; the others assume it.
            order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: i[None] for name, i in evaluation.images.items()}, step=self.step, **order)
        return evaluation

    def _record(self, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.log.append(self.step, metrics)
        self.accelerator.log(metrics, step=self.step)

    def _state(self) -> TrainerState:
        config = self.objective.model.config.to_diff_dict()
        for name in ("transformers_version", "dtype", "architectures"):
            config.pop(name, None)
        config |= self.arguments.adaptation_values()
        options, data = self.arguments.optimizer, self.objective.train_data
        batches = options.gradient_accumulation_steps * self.accelerator.num_processes
        run = {
            "optimizer": options.optimizer,
            "averaged weights": self.average is not None,
            "training episodes": data.num_episodes,
            "training frames": int(data.episode_lengths.sum()),
            **self.objective.identity,
        }
        return TrainerState(
            step=self.step,
            seconds=self.seconds,
            seed=self.arguments.run.seed,
            rows_per_step=self.arguments.data.per_device_batch_size * batches,
            model_config=json.loads(json.dumps(config)),  # as it will be read
            run=run,
            normalizer=self.normalizer.state_dict(),
        )

    def _save_checkpoint(self) -> None:
        limit = self.arguments.run.checkpoints_total_limit
        save_checkpoint(self.accelerator, self.output_dir, self._state(), self.average, limit)

    def _finish(self, evaluation: Evaluation) -> list[str]:
        weights = self.accelerator.get_state_dict(self.model)
        training = (
            f"{self.step:,} steps of {self._state().rows_per_step} rows in {self.seconds / 60:.1f} minutes. The "
            f"options are in `{ARGUMENTS_FILE}`, the curves in `{self.log.path.name}`."
        )
        run = FinishedRun(self.objective, self.arguments, self._final_model(), weights, evaluation, training)
        names = []
        if self.accelerator.is_main_process:
            with torch.compiler.set_stance("force_eager"):  # as in `_evaluate`
                names = publish_files(self.output_dir, lambda folder: write_final_folder(folder, run))
            names += [ARGUMENTS_FILE, self.log.path.name]
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        self.accelerator.print(self.objective.verdict(evaluation.values, self.log.read()))
        return names
