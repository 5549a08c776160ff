"""The world: a tokenizer and a dynamics model in one repository."""

import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import VIDEO_PROCESSOR_NAME, ModelOutput, TransformersKwargs, can_return_tuple

from .cache_dreamer import DreamerCache
from .camera_views import decode_cameras, encode_cameras
from .configuration_dreamer import DreamerWorldConfig
from .frame_inputs import START_FRAMES_NAME, FrameInput, checked_frames, prepare_states
from .generation_dreamer import DreamerWorldRolloutMixin
from .modeling_dreamer_dynamics import DreamerDynamicsModel
from .modeling_dreamer_tokenizer import DreamerEncoderOutput, DreamerTokenizerModel
from .modeling_layers import DreamerPreTrainedModel
from .rollout_noise import draw_noise
from .scheduling_shortcut import add_noise

ENV_NAME = "env.py"
"""What LeRobot looks for in a repository to make an environment of it."""


@dataclass
class DreamerWorldOutput(ModelOutput):
    """Output of [`DreamerWorldModel`].

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, T, C, H, W)`): denoised frames in [0, 1].
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): prediction of the clean latents.
        target_latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): latents of the input frames.
        states (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): prediction of the clean states in the units of
            the data; None if the world has no state.
        hidden_states, attentions (`tuple(torch.FloatTensor)`, *optional*): of the dynamics model; returned with
            `output_hidden_states=True` and `output_attentions=True`.
    """

    pixel_values_videos: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    target_latents: torch.FloatTensor | None = None
    states: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class DreamerWorldModel(DreamerWorldRolloutMixin, DreamerPreTrainedModel):
    """Interactive world: a tokenizer and a dynamics model, started from frames and steered by actions.

    ```python
    world = DreamerWorldModel.from_pretrained("path-or-repo")
    rollout = world.start_rollout(pixel_values_videos)             # (B, C, 3, H, W) in [0, 1]
    frame = rollout.step(actions).pixel_values                     # (B, a) raw actions -> (B, 3, H, W) in [0, 1]
    ```

    Args:
        config: the world's configuration; taken from the two models if they are given instead.
        tokenizer, dynamics: models to join; new ones with random weights by default.

    Raises:
        ValueError: if there is neither a config nor both models, or the two models have different latents.
    """

    config: DreamerWorldConfig

    def __init__(
        self,
        config: DreamerWorldConfig | None = None,
        tokenizer: DreamerTokenizerModel | None = None,
        dynamics: DreamerDynamicsModel | None = None,
    ):
        if config is None:
            if tokenizer is None or dynamics is None:
                raise ValueError(
                    "expected a config, or both a tokenizer and a dynamics model, for a DreamerWorldModel."
                )
            # A composite config resets the attention implementation of its parts unless it gets them.
            parts = {"tokenizer_config": tokenizer.config, "dynamics_config": dynamics.config}
            attention = {name: part._attn_implementation for name, part in parts.items()}
            config = DreamerWorldConfig(**parts, attn_implementation=attention)
        super().__init__(config)
        self.tokenizer = tokenizer or DreamerTokenizerModel(config.tokenizer_config)
        self.dynamics = dynamics or DreamerDynamicsModel(config.dynamics_config)
        self.generation_config = self.dynamics.generation_config  # one for both
        self.post_init()

    def adjust_generation_fn(self, *args, **kwargs) -> None:
        """Load `generation_config`, for the world and its dynamics model; see the base class."""
        super().adjust_generation_fn(*args, **kwargs)
        self.dynamics.generation_config = self.generation_config

    def encode(
        self,
        pixel_values_videos: FrameInput,
        past_key_values: DreamerCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerEncoderOutput:
        """Encode frames into latents; see [`DreamerTokenizerModel.encode`].

        With V cameras, frames are (B,T,V,3,H,W), latents (B,T,V*N_z,d_z), and a cache has B*V rows.
        """
        frames = pixel_values_videos
        if self.config.dynamics_config.num_cameras > 1:
            frames = checked_frames(frames, self.config.tokenizer_config, self.config.dynamics_config.camera_names)
        return encode_cameras(self.tokenizer, frames, past_key_values, **kwargs)

    def decode(self, latents: torch.FloatTensor, past_key_values: DreamerCache | None = None) -> torch.FloatTensor:
        """Decode latents (B,T,N_z,d_z) into frames (B,T,3,H,W) in [0, 1].

        With V cameras, latents (B,T,V*N_z,d_z) become frames (B,T,V,3,H,W), and a cache has B*V rows.

        Raises:
            ValueError: if the latents have another shape than the config's.
        """
        expected = self.config.dynamics_config.num_latent_tokens
        if latents.ndim != 4 or latents.shape[2] != expected:
            raise ValueError(f"expected latents of shape (B, T, {expected}, ...), got {tuple(latents.shape)}.")
        return decode_cameras(self.tokenizer, latents, past_key_values)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: the two parts are models that initialize themselves."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the tokenizer's projection of patches into tokens."""
        return self.tokenizer.get_input_embeddings()

    def _complete_folder(self, folder: Path) -> None:
        """Also keep the start frames and the video processor of the folder that the world was loaded from.

        Of a Hub repository those are kept that were downloaded: saving does not use the network.
        """
        super()._complete_folder(folder)
        self.copy_companions(folder, self.name_or_path)

    def copy_companions(self, folder: Path, source_path: str) -> None:
        """Copy the start frames and the video processor of a saved model into a folder that lacks them.

        Args:
            folder: where to.
            source_path: folder or Hub repository of the model; of the latter, only files that were downloaded.
        """
        for name in (START_FRAMES_NAME, VIDEO_PROCESSOR_NAME):
            source = _find_file(source_path, name)
            is_usable = source is not None and (name != START_FRAMES_NAME or self._fits(source))
            if is_usable and not (folder / name).exists():
                shutil.copyfile(source, folder / name)

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        # A world on the Hub is also an environment of LeRobot. Next to weights, this file comes without `hub_env`.
        ours = Path(__file__).with_name("hub_env.py")
        source = ours if ours.is_file() else _find_file(self.name_or_path, ENV_NAME)
        if source is not None:
            shutil.copyfile(source, Path(working_dir, ENV_NAME))
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _fits(self, start_frames: Path) -> bool:
        """Return whether frames and actions of a file have the sizes of this world, whose actions may have changed."""
        with safe_open(start_frames, framework="pt") as file:
            frames, actions = (file.get_slice(name).get_shape() for name in ("pixel_values_videos", "actions"))
        num_cameras = frames[2] if len(frames) == 6 else 1
        found = (tuple(frames[-2:]), actions[-1], num_cameras)
        config = self.dynamics.config
        return found == (self.tokenizer.config.frame_size, config.action_dim, config.num_cameras)

    def save_onnx(self, save_directory, dtype: str = "float32", starts=None, max_error: float | None = None) -> None:
        """Export the world as ONNX graphs, which dream without PyTorch ([`~dreamer_hf.onnx.OnnxWorld`]).

        The export is compared with this model and refused if it is off by more than `max_error`. Needs the extra
        `dreamer_hf[export]`.

        Args:
            save_directory (`str` or `os.PathLike`): folder to write, which must not exist or be empty.
            dtype (`str`, *optional*, defaults to `"float32"`): how weights are stored: `"float32"`, `"float16"` (half
                the size, same arithmetic) or `"int8"` (matrix products of integers).
            starts (`StartFrames`, *optional*): start frames to write with it. Defaults to those saved with the world.
            max_error (`float`, *optional*): largest error of a pixel in [0, 1]. The default depends on `dtype`.

        Raises:
            ValueError: an unknown dtype, packages are missing, or the export is off by more than `max_error`.
            FileExistsError: the folder is not empty.
        """
        # By name, because the model is copied next to weights as remote code, which comes without the exporter.
        exporter = import_module("dreamer_hf.onnx.export_world")
        exporter.export_onnx(self, save_directory, dtype, starts, max_error)

    @classmethod
    def from_tokenizer_dynamics_pretrained(cls, tokenizer_path, dynamics_path, **kwargs) -> "DreamerWorldModel":
        """Join two saved models into a world, in eval mode.

        ```python
        world = DreamerWorldModel.from_tokenizer_dynamics_pretrained("outputs/tokenizer", "outputs/dynamics")
        world.save_pretrained("outputs/world")
        ```

        Args:
            tokenizer_path, dynamics_path: folder or Hub repository of each model.
            kwargs: arguments of both `from_pretrained` (`dtype`, `revision`, ...).

        Raises:
            ValueError: if the two models have different latents, or a folder holds something else.
            OSError: if there is no such model.
        """
        tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_path, **kwargs)
        dynamics = DreamerDynamicsModel.from_pretrained(dynamics_path, **kwargs)
        return cls(tokenizer=tokenizer, dynamics=dynamics).eval()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        signal_level_ids: torch.LongTensor | None = None,
        step_size_ids: torch.LongTensor | None = None,
        noise: torch.FloatTensor | None = None,
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
        state_noise: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerWorldOutput:
        """Encode frames, add noise, denoise them in one teacher-forced pass and decode the prediction.

        Args:
            pixel_values_videos (`torch.FloatTensor` of shape `(B, T, C, H, W)`): frames in [0, 1].
            actions (`torch.FloatTensor` of shape `(B, T, a)`, *optional*): raw actions in the data's units;
                `actions[:, t]` belongs to frame t.
            action_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where a frame has no action.
            signal_level_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): levels to denoise from. Defaults to
                half signal, half noise.
            step_size_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): defaults to the finest step.
            noise (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`, *optional*): drawn by default.
            states (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): states in the data's units, of a world that
                has a state.
            state_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where a frame has no state.
            state_noise (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): drawn by default.

        Raises:
            ValueError: if a shape does not fit the configs.
        """
        target = self.encode(pixel_values_videos).latents
        levels = self.config.dynamics_config.num_signal_levels
        if signal_level_ids is None:
            signal_level_ids = torch.full(target.shape[:2], levels // 2, device=target.device)
        if step_size_ids is None:
            step_size_ids = torch.zeros_like(signal_level_ids)
        if noise is None:
            noise = draw_noise(target.shape, None, target.device)
        noisy = add_noise(target, noise.to(target.dtype), (signal_level_ids / levels).to(target.dtype))
        states, state_mask = prepare_states(
            states, state_mask, target.shape[:2], self.config.dynamics_config, target.device
        )
        if states is not None:
            states = self.dynamics.normalize_states(states)
            state_noise = draw_noise(states.shape, None, target.device) if state_noise is None else state_noise
            states = add_noise(states, state_noise, signal_level_ids / levels)
        conditions = signal_level_ids, step_size_ids, actions, action_mask
        output = self.dynamics(noisy, *conditions, states=states, state_mask=state_mask, **kwargs)
        return DreamerWorldOutput(
            pixel_values_videos=self.decode(output.latents),
            latents=output.latents,
            target_latents=target,
            states=None if output.states is None else self.dynamics.denormalize_states(output.states),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


def _find_file(path_or_repo: str, name: str) -> Path | None:
    """Return a file of a folder, or of a Hub repository if it is in the cache; None if there is none."""
    if Path(path_or_repo).is_dir():
        path = Path(path_or_repo, name)
        return path if path.is_file() else None
    try:
        cached = try_to_load_from_cache(path_or_repo, name)
    except HFValidationError:  # a folder that is gone, or a world that was never loaded
        return None
    return Path(cached) if isinstance(cached, str) else None


__all__ = ["DreamerWorldModel", "DreamerWorldOutput"]
