"""The options of training agents: from labeled episodes, and in dreams. The other options are in `arguments`."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..configuration_dreamer_agent import DreamerAgentConfig
from .arguments import (
    BELOW_1,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    DataArguments,
    DynamicsArguments,
    DynamicsObjectiveArguments,
    OptimizerArguments,
    Section,
    TrainingArguments,
    model_section,
    option,
)

AgentModelArguments = model_section(
    DreamerAgentConfig, "world_config", "num_tasks", "task_names", "task_dim", "predicts_continue"
)


@dataclass
class AgentObjectiveArguments(DynamicsObjectiveArguments):
    """What an agent is trained for, in addition to what its world is trained for."""

    limits: ClassVar = {
        **DynamicsObjectiveArguments.limits,
        SHARE: (*DynamicsObjectiveArguments.limits[SHARE], "relevant_fraction"),
        BELOW_1: ("relevant_quantile",),
        NOT_NEGATIVE: (*DynamicsObjectiveArguments.limits[NOT_NEGATIVE], "policy_weight", "reward_weight"),
    }

    labels: str | None = option(
        None,
        "name of the labels in the data folder, or the path of a file; the rewards in the shards if not given, or "
        "else the labels called rewards",
    )
    tasks: list[str] | None = field(
        default=None, metadata={"help": "tasks to learn, by their names in the labels; all if not given"}
    )
    relevant_fraction: float = option(
        0.5,
        "share of rows that are windows chosen for a task; the policy imitates only these, and the world learns only "
        "from the others",
    )
    relevant_quantile: float = option(
        0.7, "a window counts as relevant for a task if its mean reward is above this quantile of all windows"
    )
    freeze_world: bool = option(
        False, "keep the world unchanged and train only the agent's tokens, eye and heads, many times faster"
    )
    cache_world: bool = option(
        False,
        "with --freeze_world: compute the frozen world once for every window and keep the result in memory (2.7 MB "
        "for 32 frames of the shipped world); a larger --stride gives fewer windows",
    )
    policy_weight: float = option(1.0, "weight of the loss of the policy; that of the latents has weight 1")
    reward_weight: float = option(1.0, "weight of the loss of the rewards")


@dataclass
class AgentOptimizerArguments(OptimizerArguments):
    """How the weights of an agent and its world are updated."""

    learning_rate: float = option(1e-4, "peak learning rate of AdamW")
    head_learning_rate_ratio: float = option(3.0, "factor on the learning rate of an agent's heads")
    token_learning_rate_ratio: float = option(
        3.0,
        "factor on the learning rate of an agent's tokens; in a frozen world these alone decide what the agent looks "
        "at, and need about 60",
    )


@dataclass
class AgentArguments(DynamicsArguments):
    """All options of training an agent on labeled episodes."""

    kind: ClassVar[str] = "agent"

    model: AgentModelArguments
    objective: AgentObjectiveArguments
    optimizer: AgentOptimizerArguments

    def __post_init__(self):
        objective = self.objective
        if not self.run.pretrained:
            raise ValueError("--pretrained is missing: give the world that the agent is to act in.")
        for name in ("lora_rank", "reset_action_embedding", "freeze"):
            if getattr(objective, name):
                raise ValueError(f"--{name} changes a world: do that with dreamer train dynamics first.")
        super().__post_init__()
        if objective.cache_world and not objective.freeze_world:
            raise ValueError("--cache_world keeps what a frozen world computes: give --freeze_world as well.")
        if objective.freeze_world and objective.context_copies:
            raise ValueError("--context_copies trains the world, which --freeze_world keeps: leave one of them out.")
        if objective.cache_world and (self.data.long_sequence_length or self.data.image_fraction):
            raise ValueError("--cache_world keeps windows of one size: leave out long windows and images.")

    def adaptation_values(self) -> dict:
        """See `TrainingArguments`."""
        return {"freeze_world": True} if self.objective.freeze_world else {}


@dataclass
class DreamsModelArguments(Section):
    """What changes in the config of an agent that learns in dreams."""

    _argument_group_name: ClassVar[str] = "model (None: that of the agent)"

    discount: float | None = option(
        None, "discount of future rewards, per frame; values look about 1 / (1 - discount) frames ahead"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.discount is not None and not 0 < self.discount < 1:
            raise ValueError(f"expected a --discount above 0 and below 1, got {self.discount}.")


@dataclass
class DreamsObjectiveArguments(Section):
    """How an agent learns in dreams."""

    _argument_group_name: ClassVar[str] = "objective"
    limits: ClassVar = {
        POSITIVE: ("horizon", "updates_per_dream", "num_inference_steps", "real_steps"),
        SHARE: ("alpha", "lambda_return", "relevant_fraction"),
        BELOW_1: ("slow_value_decay", "relevant_quantile"),
        NOT_NEGATIVE: ("prior_weight", "value_warmup_steps", "real_episodes", "min_gate_correlation"),
    }

    labels: str | None = option(
        None, "name or path of labels, to start dreams from relevant windows, too; none are needed otherwise"
    )
    relevant_fraction: float = option(0.5, "with --labels: share of dreams that start from relevant windows")
    relevant_quantile: float = option(0.7, "as in dreamer train agent")
    horizon: int = option(16, "number of frames to dream; no longer than the world can be trusted")
    num_inference_steps: int | None = option(
        None, "denoising steps per dreamed frame, a power of two; what is saved with the agent if not given"
    )
    lambda_return: float = option(0.95, "lambda of the returns: 0 trusts the next value, 1 only the last one")
    alpha: float = option(0.5, "weight of the actions that were better than expected, against those that were worse")
    prior_weight: float = option(
        0.3,
        "weight of the divergence from the cloned behavior; lower it if the policy stays where it is while the share "
        "of good actions is near one half",
    )
    value_warmup_steps: int = option(200, "number of steps in which only the value is trained")
    slow_value_decay: float = option(
        0.98, "decay of the slow copy of the value head that its own predictions are pulled to; 0 for no pull"
    )
    updates_per_dream: int = option(
        1, "number of steps on the same dream; more than 1 saves time where dreaming is the cost, as on a CPU"
    )
    real_episodes: int = option(
        0, "number of episodes in the PushT simulator at every evaluation; 0 for none, and for other worlds"
    )
    real_steps: int = option(60, "number of steps of an episode in the simulator")
    min_gate_correlation: float = option(
        0.6,
        "correlation between predicted and real rewards after 8 dreamed frames that the agent must have reached; 0 "
        "starts anyway",
    )


@dataclass
class DreamsDataArguments(DataArguments):
    """Which frames dreams start from."""

    sequence_length: int = option(8, "number of real frames that a dream starts from")
    per_device_batch_size: int = option(64, "number of dreams in one batch on one device")


@dataclass
class DreamsOptimizerArguments(OptimizerArguments):
    """How the policy and the value are updated."""

    weight_decay: float = option(0.0, "decoupled weight decay of matrices (norms, biases and embeddings have none)")
    lr_warmup_steps: int = option(20, "number of steps of linear warm-up")


@dataclass
class DreamsArguments(TrainingArguments):
    """All options of training an agent in dreams."""

    kind: ClassVar[str] = "dreams"

    model: DreamsModelArguments
    objective: DreamsObjectiveArguments
    data: DreamsDataArguments
    optimizer: DreamsOptimizerArguments

    def __post_init__(self):
        if not self.run.pretrained:
            raise ValueError("--pretrained is missing: give the agent that dreamer train agent has made.")
        if self.data.long_sequence_length or self.data.image_fraction:
            raise ValueError("dreams start from windows of one size: leave out long windows and images.")
        updates, run = self.objective.updates_per_dream, self.run
        if updates > 1 and self.optimizer.gradient_accumulation_steps > 1:
            raise ValueError(
                "--updates_per_dream repeats the dreams of one batch: leave --gradient_accumulation_steps out."
            )
        if run.checkpointing_steps % updates:
            raise ValueError(
                f"expected --checkpointing_steps to be a multiple of --updates_per_dream {updates}, got "
                f"{run.checkpointing_steps}: a resumed run starts with a new dream."
            )


__all__ = ["AgentArguments", "DreamsArguments"]
