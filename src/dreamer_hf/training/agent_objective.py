"""Training an agent on labeled episodes (arXiv 2509.24527, section 3.3): it learns to act as the episodes do for each
task, and to predict rewards; the world continues to learn unless it is frozen.

Shapes: B windows, T frames, N latent tokens, C latent channels, A action dimensions, Q tasks, D hidden size.
"""

from pathlib import Path

import torch
from torch import nn

from ..agent_losses import continue_loss, policy_loss, reward_loss
from ..data import ShardDataset, collate_windows
from ..losses import DYNAMICS_LOSS_WEIGHTS, FrameConditions
from ..modeling_dreamer_agent import DreamerAgentModel, DreamerAgentOutput
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..scheduling_shortcut import add_noise
from ..start_frames import save_start_frames, starts_from_dataset
from ..video_processing_dreamer import DreamerVideoProcessor
from .agent_arguments import AgentArguments
from .agent_evaluation import ActionHistogram, AgentEvaluation, agent_verdict, write_gate
from .batches import Batch, batch_states, open_splits
from .dynamics_evaluation import DynamicsEvaluation
from .dynamics_objective import EVALUATION, DynamicsObjective
from .finetune import check_state_fits, load_world
from .flops import BACKWARD, dynamics_flops
from .frozen_world import PREDICTED, CachedWorld, WorldMemory, world_memory
from .objective import Evaluation, Scalars
from .open_labels import open_labels
from .randomness import RowNumbers, seeded_generator
from .relevance import RelevantWindows
from .trained_agent import PassWithAgent, TrainedAgent, agent_weights
from .verdicts import History

HISTOGRAM_EPISODES = 200
AGENT_LOSS_WEIGHTS = {"policy": 1.0, "reward": 1.0}
RELEVANT = 4_000_000
"""Takes the place of a kind of batch in seeds: the choice of tasks and relevant windows."""


class AgentObjective(DynamicsObjective):
    """Trains an agent, and its world unless that is frozen, on episodes with rewards; an `Objective` for `Trainer`.

    A share of the rows are windows that are relevant for a task. The policy imitates these only, and the world learns
    from the others only; rewards are learned from both. Heads read the world where a rollout has it: all frames of a
    frozen world, or the context if there are `context_copies`, stand at the context signal level.

    Args:
        arguments: options of the run.
        process, num_processes: number of this process and number of all processes.
        device: where to train.

    Raises:
        ValueError, OSError: data, labels or a world that is missing, damaged, or does not fit.
    """

    loss_weights = DYNAMICS_LOSS_WEIGHTS | AGENT_LOSS_WEIGHTS

    def __init__(self, arguments: AgentArguments, process: int, num_processes: int, device: torch.device):
        options = arguments.objective
        self.loss_weights = {"policy": options.policy_weight, "reward": options.reward_weight}
        if not options.freeze_world:
            self.loss_weights |= DYNAMICS_LOSS_WEIGHTS
        super().__init__(arguments, process, num_processes, device)
        if options.freeze_world:
            self.loss_weights.pop("state", None)
        if self.labels.terminals is not None:
            self.loss_weights["continue"] = 1.0
        self.identity |= {"tasks": ", ".join(self.labels.task_names)}
        self.windows = self.stream.datasets[0]
        self.relevant = RelevantWindows(self.windows, options.relevant_quantile)
        if options.cache_world:
            self.model.to(device)
            cached = CachedWorld(self.windows, self._memory_of_rows, arguments.run.seed, progress=process == 0)
            self.windows, self.stream.datasets = cached, [cached]

    @property
    def dynamics(self) -> DreamerDynamicsModel:
        """The dynamics model of the agent's world."""
        return self.model.agent.world.dynamics

    def _open_data(self) -> tuple[ShardDataset, ShardDataset]:
        train, test = open_splits(self.arguments)
        self.labels = open_labels(train, self.options.labels, self.options.tasks)
        return train.with_labels(self.labels), test.with_labels(self.labels)

    def _new_model(self) -> TrainedAgent:
        path, data = self.arguments.run.pretrained, self.train_data
        world = load_world(path)
        if data.action_dim != world.dynamics.config.action_dim:
            raise ValueError(
                f"the world {path} has actions of width {world.dynamics.config.action_dim}, but the data have "
                f"{data.action_dim}: give data of that width."
            )
        check_state_fits(world.dynamics, path, data.state_dim)
        tasks = {"num_tasks": len(self.labels.task_names), "task_names": list(self.labels.task_names)}
        tasks["predicts_continue"] = self.labels.terminals is not None
        agent = DreamerAgentModel.for_world(world, **tasks, **self.arguments.model_values())
        self._check_actions(agent)
        agent.world.tokenizer.requires_grad_(False)
        agent.value_head.requires_grad_(False)
        agent.prior_head.requires_grad_(False)
        if self.options.freeze_world:
            agent.world.requires_grad_(False)
        return TrainedAgent(agent)

    def _check_actions(self, agent: DreamerAgentModel) -> None:
        """Refuse data whose actions an agent of this world cannot take."""
        stats = self.train_data.action_stats
        if stats is None or "min" not in stats:
            return
        ends = torch.tensor([stats["min"], stats["max"]], dtype=torch.float32)
        space = agent.actions.space
        middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
        beyond = ((ends - torch.from_numpy(middle)).abs() / torch.from_numpy(half).clamp(min=1e-6)).amax(dim=0)
        if beyond.max() > 2:
            index = int(beyond.argmax())
            raise ValueError(
                f"the data have actions up to {beyond.max():.3g} times as far from the middle as the world knows in "
                f"component {space.names[index]} ({space.low[index]:g} to {space.high[index]:g}): give data in the "
                "units that the world was trained on."
            )

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`."""
        batch = self._with_tasks(batch, rows)
        if self.options.freeze_world:
            terms, extras, output = {}, {}, self._pass_of_frozen_world(model, batch, rows)
        else:
            acting = PassWithAgent(model, self.dynamics, batch["tasks"])
            terms, extras = super().losses(acting, batch, rows)
            output = acting.output
        return terms | self._head_losses(output, batch), extras

    def _with_tasks(self, batch: Batch, rows: RowNumbers) -> Batch:
        """Return a batch with the task of each row, in which the last rows are windows relevant for their tasks."""
        count = round(self.options.relevant_fraction * rows.num_rows)
        tasks, relevant, known = [], [], batch["reward_mask"].any(dim=1).cpu()
        for position, row in enumerate(rows):
            generator = seeded_generator("cpu", self.arguments.run.seed, RELEVANT, rows.kind, row)
            if position >= rows.num_rows - count:
                task, window = self.relevant.draw(generator)
                relevant.append(self.windows[window])
            else:
                # Unlabeled windows teach the world, whatever the task.
                choices = known[position].nonzero()[:, 0]
                choices = choices if len(choices) else torch.arange(known.shape[1])
                task = int(choices[int(torch.randint(len(choices), (), generator=generator))])
            tasks.append(task)
        if relevant:
            chosen = {name: value.to(self.device) for name, value in collate_windows(relevant).items()}
            batch = {name: torch.cat([value[: rows.num_rows - count], chosen[name]]) for name, value in batch.items()}
        tasks = torch.tensor(tasks, device=self.device)
        is_relevant = torch.arange(rows.num_rows, device=self.device) >= rows.num_rows - count
        return batch | {"tasks": tasks, "is_relevant": is_relevant}

    def _pass_of_frozen_world(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> DreamerAgentOutput:
        """Run the heads on a window whose frames all stand at the context signal level."""
        if "world_memory" in batch:
            memory = {name: batch[name] for name in ("world_memory", *PREDICTED) if name in batch}
        else:
            memory = self._memory_of_rows(batch, [generator for _, generator in rows.generators("cpu")])
        return model(world_memory=memory, tasks=batch["tasks"])

    @torch.no_grad()
    def _memory_of_rows(self, batch: Batch, generators: list[torch.Generator]) -> WorldMemory:
        """Return what an agent can see of each window, see `world_memory`."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        latents = self._latents(batch)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=each) for each in generators]).to(self.device)
        ids = torch.full(latents.shape[:2], self._context_level_id, device=self.device)
        levels = (ids / self.dynamics.config.num_signal_levels).to(latents.dtype)
        conditions = FrameConditions(ids, torch.zeros_like(ids), batch["actions"], batch["action_mask"])
        states = None
        if self.dynamics.config.state_dim:
            states, conditions.state_mask = batch_states(self.dynamics, batch)
            drawn = [torch.randn(states.shape[1:], generator=each) for each in generators]
            states = add_noise(states, torch.stack(drawn).to(self.device), levels)
        with self.autocast():
            return world_memory(self.dynamics, add_noise(latents, noise, levels), conditions, states)

    def _head_losses(self, output: DreamerAgentOutput, batch: Batch) -> Scalars:
        """Return the losses of the heads."""
        agent = self.model.agent
        imitated = batch["action_mask"] & batch["is_relevant"][:, None]
        choices = agent.actions.encode(batch["actions"])
        index = batch["tasks"][:, None, None].expand(-1, batch["rewards"].shape[1], 1)
        rewards, known = (batch[name].gather(2, index)[..., 0] for name in ("rewards", "reward_mask"))
        terms = {
            "policy": policy_loss(agent.actions, output.policy_logits, choices, imitated),
            "reward": reward_loss(output.reward_logits, rewards, known, agent.value_bins),
        }
        if "continue" in self.loss_weights:
            terms["continue"] = continue_loss(output.continue_logits, batch["continues"], batch["action_mask"])
        return terms

    def flops(self, num_rows: int, num_frames: int, step: int) -> float:
        """See `Objective`; heads are not counted, they are small."""
        if not self.options.freeze_world:
            return super().flops(num_rows, num_frames, step)
        config = self.dynamics.config
        tokens = config.num_output_tokens + config.num_register_tokens + 1 + config.num_action_tokens
        of_agent = self.model.config.num_agent_tokens / tokens
        passes = (0 if self.options.cache_world else 1) + (1 + BACKWARD / 2) * of_agent
        return num_rows * passes * dynamics_flops(config, num_frames)

    def evaluate(self, model: TrainedAgent) -> Evaluation:
        """See `Objective` and `AgentEvaluation`; image and video are those of a world that is trained, too."""
        agent = model.agent
        trained, self.model = self.model, model  # Averaged weights are evaluated in place of those in training.
        try:
            evaluation = AgentEvaluation(agent, self._memory_of_batch, self._histogram(), self.relevant.limits)
            of_world = DynamicsEvaluation(agent.world.dynamics, self.tokenizer, self.perceptual)
            for number, batch in enumerate(self.eval_batches):
                batch = {name: value.to(self.device) for name, value in batch.items()}
                generator = seeded_generator(self.device, self.arguments.run.seed, EVALUATION, number)
                evaluation.add(batch, self._latents(batch), generator)
                if not self.options.freeze_world:
                    of_world.add(batch, generator)
        finally:
            self.model = trained
        self.gate = evaluation.gate()
        if self.options.freeze_world:
            return Evaluation(evaluation.values(), {})
        return Evaluation(
            of_world.values() | evaluation.values(), {"real_dreamed_misled": of_world.image}, of_world.video
        )

    def _memory_of_batch(self, batch: Batch, generator: torch.Generator) -> WorldMemory:
        seeds = torch.randint(2**62, (len(batch["actions"]),), generator=generator, device=generator.device).tolist()
        return self._memory_of_rows(batch, [torch.Generator().manual_seed(seed) for seed in seeds])

    def _histogram(self) -> ActionHistogram:
        """Return the histogram of the training actions, of up to `HISTOGRAM_EPISODES` episodes."""
        data, actions = self.train_data, []
        for episode in data.episode_ids[:HISTOGRAM_EPISODES]:
            stored = data._read_actions(int(episode), 0, int(data._all_lengths[episode]))
            if stored is not None:
                actions.append(torch.from_numpy(stored))
        return ActionHistogram(self.model.agent.actions, self.model.agent.actions.encode(torch.cat(actions)))

    def save(self, folder: Path, model: TrainedAgent, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; writes a `DreamerAgentModel` with start frames, processor and `GATE_FILE`."""
        decode = self._decoded if self.test_data.image_size is None else None
        save_start_frames(folder, starts_from_dataset(self.test_data, self.options.num_start_frames, decode=decode))
        weights, agent = agent_weights(state_dict), model.agent
        # Learning in dreams starts from the cloned behavior and stays close to it.
        cloned = {name: value for name, value in weights.items() if name.startswith("policy_head.")}
        weights |= {name.replace("policy_head.", "prior_head."): value.clone() for name, value in cloned.items()}
        agent.save_pretrained(folder, state_dict=weights)
        DreamerVideoProcessor.for_tokenizer(self.tokenizer.config).save_pretrained(folder)
        write_gate(folder, self.gate)

    def verdict(self, values: dict[str, float], history: History) -> str:
        """See `Objective`."""
        return agent_verdict(values, history)
