"""Training an agent in the dreams of its world (arXiv 2509.24527, section 4.1): only policy and value learn.

Shapes: T frames, N latent tokens, C latent channels.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from ..camera_views import decode_cameras
from ..data import collate_windows
from ..imagination import ImaginedTrajectories
from ..modeling_dreamer_agent import DreamerAgentModel
from ..start_frames import save_start_frames, starts_from_dataset
from ..video_processing_dreamer import DreamerVideoProcessor
from ..worlds import resolve_model
from .agent_arguments import DreamsArguments
from .agent_evaluation import check_gate, copy_gate
from .batches import Batch, BatchStream, fixed_windows, open_splits
from .checkpoints import list_checkpoints
from .dream_evaluation import DreamEvaluation, dream_from, dreams_verdict, prior_support
from .dream_losses import dream_losses
from .dynamics_objective import EVALUATION, check_tokenizer
from .finetune import load_agent
from .flops import dynamics_flops
from .latents import LatentDataset
from .objective import Evaluation, Scalars
from .open_labels import open_labels
from .randomness import RowNumbers, seeded_generator
from .relevance import RelevantWindows
from .trained_agent import TrainedAgent, agent_weights
from .verdicts import History

DREAMS = 5_000_000
"""Takes the place of a kind of batch in seeds: tasks, starts and noise of dreams."""
NUM_STARTS = 8
DIVERGED = 2.0
"""A mean value this many times as large as any sum of the rewards seen so far could be means that it diverged."""


class ImaginationObjective:
    """Trains the policy and the value of an agent in dreams; an `Objective` for `Trainer`.

    A step dreams from real frames with the present policy, computes lambda-returns with the present value, and
    improves the policy by the signs of the advantages (PMPO), close to the frozen behavior that was cloned. World,
    agent tokens, eye and reward head do not change.

    Args:
        arguments: options of the run.
        process, num_processes: number of this process and number of all processes.
        device: where to train.

    Raises:
        ValueError, OSError: data or an agent that is missing, damaged, or does not fit; rewards that do not fit in
            dreams; a prior that never does anything that its rewards tell apart.
    """

    normalizes_losses = False
    autocast = nullcontext

    def __init__(self, arguments: DreamsArguments, process: int, num_processes: int, device: torch.device):
        self.arguments, self.options, self.device = arguments, arguments.objective, device
        self.loss_weights = {"policy": 1.0, "value": 1.0}
        path = arguments.run.pretrained
        self.folder = Path(resolve_model(path))
        agent = load_agent(path).to(device)
        check_gate(self.folder, self.options.min_gate_correlation)
        if arguments.model.discount is not None:
            agent.config.discount = arguments.model.discount
        self.train_data, self.test_data = open_splits(arguments)
        check_tokenizer(agent.world.tokenizer, path, self.train_data)
        self.identity = {"tokenizer fingerprint": agent.world.tokenizer.fingerprint()}
        agent.requires_grad_(False)
        agent.policy_head.requires_grad_(True)
        agent.value_head.requires_grad_(True)
        agent.policy_head.outputs[1:].requires_grad_(False)  # Only distance 0 acts.
        self.model = TrainedAgent(agent, with_slow_value=self.options.slow_value_decay > 0)
        source, held_out = self._labeled(agent)
        if source.image_size is not None:
            source, held_out = (
                LatentDataset(each, agent.world.tokenizer, progress=process == 0) for each in (source, held_out)
            )
        self.stream = BatchStream(source, arguments, process, num_processes, device)
        self.windows = self.stream.datasets[0]
        self.relevant = None
        if self.windows.labels is not None:
            self.relevant = RelevantWindows(self.windows, self.options.relevant_quantile)
        self.eval_batches = fixed_windows(held_out, arguments.run.eval_windows, arguments.data.per_device_batch_size)
        self._dream_number, self._dream = None, None
        self._largest_reward = 0.0
        self._check_prior(agent, is_shown=process == 0)

    def _labeled(self, agent: DreamerAgentModel):
        """Return the training and the held-out episodes, with labels of the agent's tasks if there are any."""
        if self.options.labels is None:
            return self.train_data, self.test_data
        labels = open_labels(self.train_data, self.options.labels, agent.config.task_names)
        return self.train_data.with_labels(labels), self.test_data.with_labels(labels)

    def _check_prior(self, agent: DreamerAgentModel, is_shown: bool) -> None:
        """Report what the cloned behavior earns in dreams, and refuse one from which nothing can be learned."""
        batch = {name: value.to(self.device) for name, value in self.eval_batches[0].items()}
        generator = seeded_generator("cpu", self.arguments.run.seed, EVALUATION)
        support = prior_support(agent, batch, self.options.horizon, self.options.num_inference_steps, generator)
        if is_shown:
            print(support.describe())
        support.check()

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """See `Objective`."""
        return self.stream.batches(start_step)

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`."""
        self.model.update_slow_value(self.options.slow_value_decay)
        dream = self._dream_of(batch, rows)
        terms, extras = dream_losses(model, self.model, dream, self.options)
        self._check_value(extras["value_mean"], dream.rewards, rows.step)
        if rows.step < self.options.value_warmup_steps:
            terms["policy"] = 0 * terms["policy"]
        return terms, extras

    def _dream_of(self, batch: Batch, rows: RowNumbers) -> ImaginedTrajectories:
        """Return the dream of a step: a new one, or that of an earlier step with `updates_per_dream`."""
        number = rows.step // self.options.updates_per_dream
        if self._dream_number != number or self.options.updates_per_dream == 1:
            self._dream_number, self._dream = number, self._imagine(batch, rows)
        return self._dream

    @torch.no_grad()
    def _imagine(self, batch: Batch, rows: RowNumbers) -> ImaginedTrajectories:
        seed, tasks, generators, relevant = self.arguments.run.seed, [], [], []
        count = 0 if self.relevant is None else round(self.options.relevant_fraction * rows.num_rows)
        for position, row in enumerate(rows):
            generator = seeded_generator("cpu", seed, DREAMS, rows.kind, row)
            if position >= rows.num_rows - count:
                task, window = self.relevant.draw(generator)
                relevant.append(self.windows[window])
            else:
                task = int(torch.randint(self.model.config.num_tasks, (), generator=generator))
            tasks.append(task)
            generators.append(generator)
        if relevant:
            chosen = {name: value.to(self.device) for name, value in collate_windows(relevant).items()}
            batch = {name: torch.cat([batch[name][: rows.num_rows - count], chosen[name]]) for name in chosen}
        with self.autocast():
            return dream_from(
                self.model.agent,
                batch,
                torch.tensor(tasks),
                self.options.horizon,
                self.options.num_inference_steps,
                generators,
            )

    def _check_value(self, mean: torch.Tensor, rewards: torch.Tensor, step: int) -> None:
        """Stop a run whose mean value has left what the rewards allow."""
        self._largest_reward = max(self._largest_reward, float(rewards.abs().max()))
        discount = self.model.config.discount
        limit = self._largest_reward / (1 - discount) if discount < 1 else math.inf
        found = abs(float(mean))
        if found > DIVERGED * limit + 1e-3:
            checkpoints = list_checkpoints(Path(self.arguments.run.output_dir))
            last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
            raise ValueError(
                f"the value diverged at step {step + 1}: its mean is {found:.3g}, where rewards of up to "
                f"{self._largest_reward:.3g} allow {limit:.3g}; {last}: lower --learning_rate or --discount."
            )

    def flops(self, num_rows: int, num_frames: int, step: int) -> float:
        """See `Objective`; heads are not counted, they are small."""
        config, steps = self.model.config.dynamics_config, self.options.num_inference_steps
        steps = self.model.agent.generation_config.num_inference_steps if steps is None else steps
        frames = num_frames + self.options.horizon * (steps + 1)
        return num_rows * dynamics_flops(config, 1) * frames / self.options.updates_per_dream

    def evaluate(self, model: TrainedAgent) -> Evaluation:
        """See `Objective` and `DreamEvaluation`."""
        evaluation = DreamEvaluation(model.agent, self.options)
        for number, batch in enumerate(self.eval_batches):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            seeds = self.arguments.run.seed, EVALUATION, number
            evaluation.add(batch, [seeded_generator("cpu", *seeds, row) for row in range(len(batch["actions"]))])
        if self.options.real_episodes:
            evaluation.act_in_simulator(self.options.real_episodes, self.options.real_steps)
        return Evaluation(evaluation.values(), {}, evaluation.video)

    def save(self, folder: Path, model: TrainedAgent, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; writes a `DreamerAgentModel` with start frames and processor."""
        decode = self._decoded if self.test_data.image_size is None else None
        save_start_frames(folder, starts_from_dataset(self.test_data, NUM_STARTS, decode=decode))
        model.agent.save_pretrained(folder, state_dict=agent_weights(state_dict))
        DreamerVideoProcessor.for_tokenizer(model.agent.world.tokenizer.config).save_pretrained(folder)
        copy_gate(self.folder, folder)

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents (T,N,C) to uint8 frames (T,3,H,W), or (T,V,3,H,W) of several cameras."""
        frames = decode_cameras(self.model.agent.world.tokenizer, latents[None].to(self.device))[0]
        return (frames * 255).round().byte().cpu()

    def verdict(self, values: dict[str, float], history: History) -> str:
        """See `Objective`."""
        return dreams_verdict(values, history)
