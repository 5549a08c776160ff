"""Training the dynamics model on the latents of a frozen tokenizer: shortcut forcing (arXiv 2509.24527, section 3.2)."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..adapters import save_adapter
from ..configuration_dreamer import DreamerDynamicsConfig
from ..data import ShardDataset
from ..image_metrics import load_lpips
from ..losses import (
    DYNAMICS_LOSS_WEIGHTS,
    FrameConditions,
    is_bootstrap_row,
    move_to_context_level,
    predicted_context,
    prepend_context,
    sample_training_row,
    shortcut_forcing_loss,
)
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..modeling_dreamer_world import DreamerWorldModel
from ..scheduling_shortcut import CONTEXT_SIGNAL_LEVEL, signal_level_id
from ..start_frames import save_start_frames, starts_from_dataset
from ..video_processing_dreamer import DreamerVideoProcessor
from .arguments import DynamicsArguments
from .batches import BatchStream, fixed_windows, open_splits
from .dynamics_evaluation import DynamicsEvaluation
from .finetune import TOKENIZER, has_adapter, load_model, load_to_adapt
from .latents import LatentDataset
from .optimizers import compile_layers
from .randomness import RowNumbers, seeded_generator
from .trainer import Batch, Evaluation, Scalars

EVALUATION = 1_000_000
"""In place of a kind of batch: evaluations have draws of their own, the same ones each time."""
OWN_PAST = 2_000_000
"""Likewise: which windows' past is the model's own."""


class DynamicsObjective:
    """A new dynamics model for the data and the tokenizer at hand; an `Objective` for `Trainer`.

    Args:
        arguments: keys of the run.
        process, num_processes: which of how many processes this is.
        device: where to train.

    Raises:
        ValueError, OSError: data or a tokenizer that is missing, damaged, or does not fit.
    """

    loss_weights = DYNAMICS_LOSS_WEIGHTS
    autocast = nullcontext

    def __init__(self, arguments: DynamicsArguments, process: int, num_processes: int, device: torch.device):
        self.arguments, self.device = arguments, device
        offset = 1 if arguments.action_offset is None else arguments.action_offset
        self.train_data, self.test_data = open_splits(arguments, offset)
        self.tokenizer = load_tokenizer(arguments.tokenizer, self.train_data).to(device)
        self.identity = {"tokenizer fingerprint": self.tokenizer.fingerprint()}
        self.model = self._new_model()
        source = self.train_data
        if source.image_size is not None:  # frames, not latents
            if arguments.cache_latents:
                source = LatentDataset(source, self.tokenizer, progress=process == 0)
            elif arguments.torch_compile:
                compile_layers(self.tokenizer)
        self.stream = BatchStream(source, arguments, process, num_processes, device)
        self.perceptual = load_lpips(arguments.lpips_net, device)
        self.eval_batches = fixed_windows(self.test_data, arguments.eval_windows, arguments.per_device_batch_size)

    def _new_model(self) -> DreamerDynamicsModel:
        data, latents = self.train_data, self.tokenizer.config
        if data.action_dim == 0:
            raise ValueError(
                f"no episode in {data.data_dir} has actions: a world needs data that have some to be steered."
            )
        values = {
            "num_latent_tokens": latents.num_latent_tokens,
            "latent_dim": latents.latent_dim,
            "action_dim": data.action_dim,
            "action_offset": data.action_offset,
            "fps": data.fps,
            **self.arguments.model_values(),
        }
        # The data also count what the statistics were made of.
        stats = data.action_stats and {name: data.action_stats[name] for name in ("mean", "std", "min", "max")}
        labels = {"action_names": data.action_names, "action_units": data.action_units}
        described = {"action_stats": stats, **labels} | values
        if self.arguments.pretrained:
            return load_to_adapt(self.arguments, values, described)
        knows_coarse_steps = self.arguments.bootstrap_fraction > 0
        return DreamerDynamicsModel(DreamerDynamicsConfig(step_size_conditioning=knows_coarse_steps, **described))

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """See `Objective`."""
        return self.stream.batches(start_step)

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`; the parts of the loss over flow and over bootstrap frames are logged beside it."""
        windows = self._latents(batch), batch["actions"], batch["action_mask"]
        copies, past_length = 1 + self.arguments.past_copies, windows[0].shape[1]
        latents, actions, mask = (torch.cat([part] * copies, dim=1) for part in windows)
        fraction = self.arguments.bootstrap_fraction if rows.step >= self.arguments.bootstrap_start_step else 0.0
        draws = []
        for row, generator in rows.generators("cpu"):  # hundreds of small draws: a GPU is slower at them
            draws.append(self._draw(latents.shape[1:], past_length, is_bootstrap_row(row, fraction), generator))
        levels, steps, moved, noise = (torch.stack(column).to(self.device) for column in zip(*draws))
        if self.arguments.own_past_fraction > 0:
            past = self._predicted_past(model, windows, noise, rows)
            latents = torch.cat([past, latents[:, past_length:]], dim=1)
        in_step = isinstance(model, FSDPModule) and fraction > 0
        ramp = self.arguments.ramp_weight
        beside_past = self.arguments.past_copies > 0
        conditions = FrameConditions(levels, steps, actions, mask, past_length if beside_past else None)
        is_context = moved if beside_past or not self.arguments.context_loss else None
        result = shortcut_forcing_loss(model, latents, noise, conditions, is_context, ramp, in_step)
        return {"shortcut": result.loss}, {"flow_loss": result.flow_loss, "bootstrap_loss": result.bootstrap_loss}

    def _predicted_past(
        self, model: nn.Module, windows: tuple[torch.Tensor, ...], noise: torch.Tensor, rows: RowNumbers
    ) -> torch.Tensor:
        """(B,P,N,C): the windows' past, in some of them the model's own predictions from a drawn frame on."""
        length = windows[0].shape[1]
        first = min(self.arguments.num_context_frames, length)
        num_real = []
        for row in rows:
            generator = seeded_generator("cpu", self.arguments.seed, OWN_PAST, rows.kind, row)
            is_own = torch.rand((), generator=generator) < self.arguments.own_past_fraction
            drawn = torch.randint(first, length + 1, (), generator=generator)
            num_real.append(int(drawn) if is_own else length)
        context = signal_level_id(CONTEXT_SIGNAL_LEVEL, self.model.config.num_signal_levels)
        num_real = torch.tensor(num_real, device=self.device)
        in_step = isinstance(model, FSDPModule)
        return predicted_context(model, *windows, noise[:, : 2 * length], num_real, context, in_step)

    def _latents(self, batch: Batch) -> torch.Tensor:
        """Clean latents (B,T,N,C) of a batch, stored or encoded now."""
        if "latents" in batch:
            return batch["latents"].float()
        with torch.no_grad(), self.autocast():
            return self.tokenizer.encode(batch["pixel_values_videos"]).latents.float()

    def _draw(self, shape: torch.Size, past_length: int, is_bootstrap: bool, generator: torch.Generator):
        """Signal levels (T,), step sizes (T,), whether they are those of the past (T,), and noise (T,N,C) of one row."""
        arguments, levels = self.arguments, self.model.config.num_signal_levels
        context, first = signal_level_id(CONTEXT_SIGNAL_LEVEL, levels), arguments.num_context_frames
        num_drawn = shape[0] - past_length if arguments.past_copies else shape[0]
        drawn = sample_training_row(num_drawn, levels, is_bootstrap, generator, generator.device)
        if arguments.past_copies:
            drawn = prepend_context(*drawn, past_length, context, arguments.pure_noise_fraction, generator, first)
        elif arguments.context_level_fraction > 0:
            drawn = move_to_context_level(*drawn, arguments.context_level_fraction, context, generator, first)
        else:
            drawn = *drawn, torch.zeros(num_drawn, dtype=torch.bool)
        return *drawn, torch.randn(shape, generator=generator)

    def evaluate(self, model: DreamerDynamicsModel) -> Evaluation:
        """See `Objective` and `DynamicsEvaluation`; the picture holds, for each of two windows, a row of real frames,
        one of dreamt ones, and one dreamt with the actions of another window; the film shows them side by side."""
        evaluation = DynamicsEvaluation(model, self.tokenizer, self.perceptual)
        for number, batch in enumerate(self.eval_batches):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            evaluation.add(batch, seeded_generator(self.device, self.arguments.seed, EVALUATION, number))
        return Evaluation(evaluation.values(), {"real_dreamt_misled": evaluation.picture}, evaluation.film)

    def save(self, folder: Path, model: DreamerDynamicsModel, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; a `DreamerWorldModel` folder with its processor, or a PEFT adapter; with start frames."""
        decode = self._decoded if self.test_data.image_size is None else None
        save_start_frames(folder, starts_from_dataset(self.test_data, self.arguments.num_start_frames, decode=decode))
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
        """Latents (C,N,d) -> uint8 frames (C,3,H,W)."""
        frames = self.tokenizer.decode(latents[None].to(self.device)).pixel_values_videos[0]
        return (frames * 255).round().byte().cpu()

    def summary(self, values: dict[str, float]) -> str:
        """See `Objective`."""
        return (
            f"held-out dream: first frame {values['eval_psnr_1']:.2f} dB, against {values['eval_repeat_psnr_1']:.2f} dB "
            f"for repeating the last real one; with the actions of another window its error is "
            f"{values['eval_action_shuffle_ratio']:.2f} times as large."
        )


def load_tokenizer(path: str, data: ShardDataset) -> DreamerTokenizerModel:
    """Loads the frozen tokenizer that latents come from.

    Raises:
        FileNotFoundError: there is no model at the path.
        ValueError: what is there is something else, takes frames of another size than the data's, or is not the one
            that made the data's latents.
    """
    tokenizer = load_model(path, TOKENIZER).eval().requires_grad_(False)
    if data.image_size is None:
        if data.metadata.tokenizer_fingerprint != tokenizer.fingerprint():
            raise ValueError(
                f"the latents in {data.data_dir} were not made by the tokenizer {path}: give the tokenizer that made "
                "them, or encode the frames again with examples/encode_latents.py."
            )
    elif tokenizer.config.frame_size != data.image_size:
        ours, theirs = ("x".join(map(str, size)) for size in (tokenizer.config.frame_size, data.image_size))
        raise ValueError(
            f"the tokenizer {path} takes frames of {ours} pixels (height x width) but the data has {theirs}: convert the "
            "data at that size, or train a tokenizer on this data."
        )
    return tokenizer
