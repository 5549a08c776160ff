"""Training the dynamics model on the latents of a frozen tokenizer: shortcut forcing (arXiv 2509.24527, section 3.2).

Shapes: B windows, T frames, N latent tokens, C latent channels, A action dimensions, S state dimensions.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..adapters import save_adapter
from ..camera_views import decode_cameras, encode_cameras
from ..configuration_dreamer import DreamerDynamicsConfig
from ..data import ShardDataset
from ..data.action_data import without_rounding_noise
from ..data.shards import STATISTICS
from ..image_metrics import load_lpips
from ..losses import (
    DYNAMICS_LOSS_WEIGHTS,
    FrameConditions,
    is_bootstrap_row,
    predicted_context,
    prepend_context,
    sample_training_row,
    shortcut_forcing_loss,
)
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..modeling_dreamer_world import DreamerWorldModel
from ..scheduling_shortcut import signal_level_id
from ..start_frames import save_start_frames, starts_from_dataset
from ..video_processing_dreamer import DreamerVideoProcessor
from .arguments import DynamicsArguments
from .batches import BatchStream, batch_states, fixed_windows, open_splits
from .dynamics_evaluation import DynamicsEvaluation
from .finetune import TOKENIZER, check_state_fits, has_adapter, load_model, load_to_adapt
from .flops import BACKWARD, dynamics_flops, encoder_flops
from .latents import LatentDataset
from .objective import Batch, Evaluation, Scalars
from .optimizers import compile_layers
from .randomness import RowNumbers, seeded_generator
from .verdicts import History, dynamics_verdict

EVALUATION = 1_000_000
"""Takes the place of a kind of batch in seeds: all evaluations use the same draws, and training uses others."""
OWN_CONTEXT = 2_000_000
"""Likewise, for the choice of the windows whose context is predicted by the model."""


class DynamicsObjective:
    """Trains a dynamics model on latents and actions; an `Objective` for `Trainer`.

    Args:
        arguments: options of the run.
        process, num_processes: number of this process and number of all processes.
        device: where to train.

    Raises:
        ValueError, OSError: data or a tokenizer that is missing, damaged, or does not fit.
    """

    loss_weights = DYNAMICS_LOSS_WEIGHTS
    normalizes_losses = True
    autocast = nullcontext

    def __init__(self, arguments: DynamicsArguments, process: int, num_processes: int, device: torch.device):
        self.arguments, self.options, self.device = arguments, arguments.objective, device
        self.train_data, self.test_data = self._open_data()
        self.tokenizer = load_tokenizer(self.options.tokenizer, self.train_data).to(device)
        self.identity = {"tokenizer fingerprint": self.tokenizer.fingerprint()}
        self.model = self._new_model()
        if self.dynamics.config.state_dim:
            self.loss_weights = self.loss_weights | {"state": self.options.state_weight}
        parameters = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        self.trained_share = sum(size for size, trained in parameters if trained) / sum(size for size, _ in parameters)
        source = self.train_data
        self.encodes_frames = source.image_size is not None and not self.options.cache_latents
        if source.image_size is not None and self.options.cache_latents:
            source = LatentDataset(source, self.tokenizer, progress=process == 0)
        elif self.encodes_frames and arguments.run.torch_compile:
            compile_layers(self.tokenizer)
        self.stream = BatchStream(source, arguments, process, num_processes, device)
        self.perceptual = load_lpips(arguments.run.lpips_net, device)
        self.eval_batches = fixed_windows(
            self.test_data, arguments.run.eval_windows, arguments.data.per_device_batch_size
        )

    def _open_data(self) -> tuple[ShardDataset, ShardDataset]:
        """Open the training and the held-out episodes."""
        offset = self.arguments.model.action_offset
        return open_splits(self.arguments, 1 if offset is None else offset)

    @property
    def dynamics(self) -> DreamerDynamicsModel:
        """The dynamics model: what is trained, or a part of it."""
        return self.model

    def _new_model(self) -> nn.Module:
        data, latents = self.train_data, self.tokenizer.config
        if data.action_dim == 0:
            raise ValueError(
                f"no episode in {data.data_dir} has actions: a dynamics model needs some episodes that have them."
            )
        values = {
            "num_latent_tokens": data.metadata.num_cameras * latents.num_latent_tokens,
            "latent_dim": latents.latent_dim,
            "action_dim": data.action_dim,
            "action_offset": data.action_offset,
            **({} if data.fps is None else {"fps": data.fps}),
            **self.arguments.model_values(),
        }
        stats = _statistics(data.action_stats)
        labels = {name: getattr(data, name) for name in ("action_names", "action_units", "relative_actions")}
        if data.camera_names is not None:
            values["camera_names"] = data.camera_names
        described = {"action_stats": stats, **labels} | values
        if self.arguments.run.pretrained:
            model = load_to_adapt(self.arguments, values, described)
            check_state_fits(model, self.arguments.run.pretrained, data.state_dim)
            return model
        if self.options.learn_state and data.state_dim:
            described |= {"state_dim": data.state_dim, "state_stats": _statistics(data.state_stats)}
            described |= {name: getattr(data, name) for name in ("state_names", "state_units")}
        knows_coarse_steps = self.options.bootstrap_fraction > 0
        return DreamerDynamicsModel(DreamerDynamicsConfig(step_size_conditioning=knows_coarse_steps, **described))

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """See `Objective`."""
        return self.stream.batches(start_step)

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`; the parts of the loss over flow and over bootstrap frames are logged as well."""
        windows = self._latents(batch), batch["actions"], batch["action_mask"]
        copies, length = self.options.context_copies, windows[0].shape[1]
        latents, actions, mask = (torch.cat([part] * (1 + copies), dim=1) for part in windows)
        fraction = self._bootstrap_fraction(rows.step)
        draws = []
        for row, generator in rows.generators("cpu"):  # hundreds of small draws: a GPU is slower at them
            draw = self._draw(latents.shape[1:], length, is_bootstrap_row(row, fraction), generator)
            draws.append((*draw, *self._draw_state(latents.shape[1], length, generator)))
        levels, steps, is_context, noise, *of_state = (torch.stack(column).to(self.device) for column in zip(*draws))
        states = state_mask = state_noise = None
        if of_state:
            state_noise, is_shown = of_state
            states, state_mask = batch_states(self.dynamics, batch)
            states, state_mask = (torch.cat([part] * (1 + copies), dim=1) for part in (states, state_mask))
            state_mask = state_mask & is_shown
        if self.options.own_context_fraction > 0:
            of_state = None if states is None else (states[:, :length], state_mask, state_noise)
            context, *context_states = self._predicted_context(model, windows, noise, rows, of_state)
            latents = torch.cat([context, latents[:, length:]], dim=1)
            states = torch.cat([*context_states, states[:, length:]], dim=1) if context_states else None
        conditions = FrameConditions(levels, steps, actions, mask, length if copies else None, state_mask)
        result = shortcut_forcing_loss(
            model,
            latents,
            noise,
            conditions,
            is_context=self._has_no_loss(batch, is_context) if copies or "is_relevant" in batch else None,
            ramp_weight=self.options.ramp_weight,
            sync_across_ranks=isinstance(model, FSDPModule) and fraction > 0,
            states=states,
            state_noise=state_noise,
        )
        terms = {"shortcut": result.loss} | ({} if states is None else {"state": result.state_loss})
        return terms, {"flow_loss": result.flow_loss, "bootstrap_loss": result.bootstrap_loss}

    def _has_no_loss(self, batch: Batch, is_context: torch.Tensor) -> torch.Tensor:
        """Return which frames (B,T) have no loss, copies included: the context, and windows chosen for a task.

        A world that learned mostly from what succeeds would expect success (section 3.3).
        """
        return is_context | batch["is_relevant"][:, None] if "is_relevant" in batch else is_context

    def _bootstrap_fraction(self, step: int) -> float:
        return self.options.bootstrap_fraction if step >= self.options.bootstrap_start_step else 0.0

    def _predicted_context(
        self,
        model: nn.Module,
        windows: tuple[torch.Tensor, ...],
        noise: torch.Tensor,
        rows: RowNumbers,
        of_state: tuple[torch.Tensor, ...] | None,
    ) -> list[torch.Tensor]:
        """Return the context (B,T,N,C) of the windows and its states (B,T,S), if there are any: in some windows, the
        model's own predictions from a random frame on."""
        length = windows[0].shape[1]
        first = min(self.options.num_context_frames, length)
        num_real = []
        for row in rows:
            generator = seeded_generator("cpu", self.arguments.run.seed, OWN_CONTEXT, rows.kind, row)
            is_own = torch.rand((), generator=generator) < self.options.own_context_fraction
            drawn = torch.randint(first, length + 1, (), generator=generator)
            num_real.append(int(drawn) if is_own else length)
        num_real = torch.tensor(num_real, device=self.device)
        twice = slice(0, 2 * length)
        given = () if of_state is None else (of_state[0], *(part[:, twice] for part in of_state[1:]))
        settings = self._context_level_id, isinstance(model, FSDPModule)
        return predicted_context(model, *windows, noise[:, twice], num_real, *settings, *given)

    @property
    def _context_level_id(self) -> int:
        """Index of the signal level that rollouts of the model give to the frames before."""
        level = self.dynamics.generation_config.context_signal_level
        return signal_level_id(level, self.dynamics.config.num_signal_levels)

    def _latents(self, batch: Batch) -> torch.Tensor:
        """Return the clean latents (B,T,N,C) of a batch, stored or encoded now."""
        if "latents" in batch:
            return batch["latents"].float()
        with torch.no_grad(), self.autocast():
            return encode_cameras(self.tokenizer, batch["pixel_values_videos"]).latents.float()

    def _draw(self, shape: torch.Size, length: int, is_bootstrap: bool, generator: torch.Generator):
        """Draw for one row of T frames, context copies included.

        Returns:
            Signal levels (T,), step sizes (T,), whether frames are only context (T,), and noise (T,N,C).
        """
        levels, copies = self.dynamics.config.num_signal_levels, self.options.context_copies
        num_drawn = shape[0] - length if copies else shape[0]
        drawn = sample_training_row(num_drawn, levels, is_bootstrap, generator, generator.device)
        if copies:
            first, fraction = self.options.num_context_frames, self.options.pure_noise_fraction
            drawn = prepend_context(*drawn, length, self._context_level_id, fraction, generator, first)
        else:
            drawn = *drawn, torch.zeros(num_drawn, dtype=torch.bool)
        return *drawn, torch.randn(shape, generator=generator)

    def _draw_state(self, num_frames: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw for the states of one row: noise (num_frames,S), and which frames show theirs, (num_frames,) bool.

        The first frames may not: those of the context, if the `length` frames of the window are copied. Nothing is
        drawn for a world without a state.
        """
        if not self.dynamics.config.state_dim:
            return ()
        noise = torch.randn(num_frames, self.dynamics.config.state_dim, generator=generator)
        is_dropped = torch.rand((), generator=generator) < self.options.state_dropout
        num_hidden = int(torch.randint(1, length + 1, (), generator=generator)) if is_dropped else 0
        return noise, torch.arange(num_frames) >= num_hidden

    def flops(self, num_rows: int, num_frames: int, step: int) -> float:
        """See `Objective`; frozen weights need no gradients, so that half of their backward pass is saved."""
        config, options = self.dynamics.config, self.options
        one_pass = dynamics_flops(config, num_frames * (1 + options.context_copies))
        passes = 1 + BACKWARD * (1 + self.trained_share) / 2 + 2 * self._bootstrap_fraction(step)
        context = options.own_context_fraction * dynamics_flops(config, 2 * num_frames)
        encoding = encoder_flops(self.tokenizer.config, num_frames) if self.encodes_frames else 0
        return num_rows * (passes * one_pass + context + encoding)

    def evaluate(self, model: DreamerDynamicsModel) -> Evaluation:
        """See `Objective` and `DynamicsEvaluation`; the image holds, for each of two windows, a row of real frames,
        one of dreamed frames, and one of frames dreamed with the actions of another window; the video shows them side
        by side."""
        evaluation = DynamicsEvaluation(model, self.tokenizer, self.perceptual)
        for number, batch in enumerate(self.eval_batches):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            evaluation.add(batch, seeded_generator(self.device, self.arguments.run.seed, EVALUATION, number))
        return Evaluation(evaluation.values(), {"real_dreamed_misled": evaluation.image}, evaluation.video)

    def save(self, folder: Path, model: DreamerDynamicsModel, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; writes a `DreamerWorldModel` with its processor, or a PEFT adapter, and start frames."""
        decode = self._decoded if self.test_data.image_size is None else None
        save_start_frames(folder, starts_from_dataset(self.test_data, self.options.num_start_frames, decode=decode))
        if has_adapter(model):
            save_adapter(model, folder, state_dict)
            return
        world = DreamerWorldModel(tokenizer=self.tokenizer, dynamics=model)
        weights = {f"tokenizer.{name}": value for name, value in self.tokenizer.state_dict().items()}
        weights |= {f"dynamics.{name}": value for name, value in state_dict.items()}
        world.save_pretrained(folder, state_dict=weights)
        DreamerVideoProcessor.for_tokenizer(self.tokenizer.config).save_pretrained(folder)

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents (T,N,C) to uint8 frames (T,3,H,W), or (T,V,3,H,W) of several cameras."""
        frames = decode_cameras(self.tokenizer, latents[None].to(self.device))[0]
        return (frames * 255).round().byte().cpu()

    def verdict(self, values: dict[str, float], history: History) -> str:
        """See `Objective`."""
        return dynamics_verdict(values, history)


def _statistics(stats: dict | None) -> dict | None:
    """Return statistics of data as a config holds them: without the number of vectors that they were computed from."""
    stats = stats and without_rounding_noise(stats)
    return stats and {name: stats[name] for name in STATISTICS if name in stats}


def load_tokenizer(path: str, data: ShardDataset) -> DreamerTokenizerModel:
    """Load the frozen tokenizer that latents come from.

    Raises:
        FileNotFoundError: there is no model at the path.
        ValueError: the path holds another kind of model, or the tokenizer takes frames of another size than the data's
            or did not make the data's latents.
    """
    tokenizer = load_model(path, TOKENIZER).eval().requires_grad_(False)
    check_tokenizer(tokenizer, path, data)
    return tokenizer


def check_tokenizer(tokenizer: DreamerTokenizerModel, path: str, data: ShardDataset) -> None:
    """Check that data are frames that a tokenizer takes, or latents that it made.

    Raises:
        ValueError: they are not.
    """
    if data.image_size is None:
        if data.metadata.tokenizer_fingerprint != tokenizer.fingerprint():
            raise ValueError(
                f"the latents in {data.data_dir} were not made by the tokenizer {path}: give the tokenizer that made "
                "them, or encode the frames again with this one."
            )
    elif tokenizer.config.frame_size != data.image_size:
        ours, theirs = ("x".join(map(str, size)) for size in (tokenizer.config.frame_size, data.image_size))
        raise ValueError(
            f"the tokenizer {path} takes frames of {ours} pixels (height x width) but the data has {theirs}: convert "
            "the data at that size, or train a tokenizer on this data."
        )
