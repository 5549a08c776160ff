"""How a model dreams unless an argument says otherwise: `generation_config.json`, loaded and saved with the model."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from .scheduling_shortcut import CONTEXT_SIGNAL_LEVEL, RolloutSchedule


class DreamerGenerationConfig(GenerationConfig):
    """How a model dreams, unless an argument says otherwise; saved with it as `generation_config.json`.

    Args:
        num_inference_steps (`int`, *optional*, defaults to 4): denoising passes per frame, a power of two.
        context_signal_level (`float`, *optional*, defaults to 0.9): level in [0, 1) at which past frames are shown to
            the model; a little noise makes it robust to its own errors.

    ```python
    world.generation_config.num_inference_steps = 8     # slower, and a little sharper
    world.save_pretrained("my-world")                   # remembers it
    ```
    """

    def __init__(self, num_inference_steps: int = 4, context_signal_level: float = CONTEXT_SIGNAL_LEVEL, **kwargs):
        self.num_inference_steps = num_inference_steps
        self.context_signal_level = context_signal_level
        super().__init__(**kwargs)

    def validate(self, *args, **kwargs) -> None:
        """Check the values, as the base class does; a model also checks them against its grid.

        Raises:
            ValueError: a number of steps that is not a power of two, or a level outside [0, 1).
        """
        super().validate(*args, **kwargs)
        steps, level = self.num_inference_steps, self.context_signal_level
        if type(steps) is not int or steps < 1 or steps & (steps - 1):
            raise ValueError(f"expected a power of two for num_inference_steps, got {steps!r}.")
        if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 <= level < 1:
            raise ValueError(f"expected a number of at least 0 and below 1 for context_signal_level, got {level!r}.")

    @classmethod
    def from_json(cls, path: str | Path) -> DreamerGenerationConfig:
        """Read a `generation_config.json`.

        Raises:
            ValueError: the file is damaged or holds impossible values.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): correct it, or delete it to use defaults.") from error

    @classmethod
    def from_model_config(cls, model_config) -> DreamerGenerationConfig:
        """Return the defaults: a model's config says nothing about generation."""
        return cls()


class DreamerGenerationMixin:
    """Loads and saves a `generation_config`, for models that generate without being language models."""

    generation_config_class = DreamerGenerationConfig

    @classmethod
    def can_generate(cls) -> bool:
        """Return True: transformers then saves and loads `generation_config` with the model."""
        return True

    def adjust_generation_fn(
        self,
        generation_config,
        from_auto_class,
        from_pipeline,
        pretrained_model_name_or_path,
        cache_dir,
        force_download,
        proxies,
        local_files_only,
        token,
        revision,
        subfolder,
        trust_remote_code=None,
        **kwargs,
    ) -> None:
        """Load `generation_config.json`, for `from_pretrained`; a model without that file keeps the defaults.

        Raises:
            ValueError: the file is damaged or holds impossible values.
        """
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            path = cached_file(
                pretrained_model_name_or_path,
                GENERATION_CONFIG_NAME,
                cache_dir=cache_dir,
                force_download=force_download,
                proxies=proxies,
                local_files_only=local_files_only,
                token=token,
                revision=revision,
                subfolder=subfolder,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            if path is not None:
                self.generation_config = self.generation_config_class.from_json(path)

    def rollout_schedule(
        self, num_inference_steps: int | None = None, context_signal_level: float | None = None
    ) -> RolloutSchedule:
        """Return the passes of a frame, with the values of `generation_config` for those not given.

        Raises:
            ValueError: a number of steps or a level that is not on the model's grid.
        """
        config, settings = getattr(self.config, "dynamics_config", self.config), self.generation_config
        if num_inference_steps is None:
            num_inference_steps = settings.num_inference_steps
        if context_signal_level is None:
            context_signal_level = settings.context_signal_level
        return RolloutSchedule(num_inference_steps, context_signal_level, config.num_signal_levels)


__all__ = ["DreamerGenerationConfig", "DreamerGenerationMixin"]
