"""Makes `AutoConfig`, `AutoModel` and `AutoVideoProcessor` know our classes, at no cost to those who use none of them.

Importing transformers' model code takes seconds and importing torch more; data workers, converters and clients of a
served world need neither. So `import dreamer_hf` imports nothing, and each registration runs when the auto class that
it concerns is imported (at once, if that has happened already).
"""

import sys
from importlib import import_module

from wrapt import register_post_import_hook

_AUTO = "transformers.models.auto"
_MODEL_OF = {
    f"{__package__}.modeling_dreamer_tokenizer": "DreamerTokenizerModel",
    f"{__package__}.modeling_dreamer_dynamics": "DreamerDynamicsModel",
    f"{__package__}.modeling_dreamer_world": "DreamerWorldModel",
}

_COMPLETE_WITH = {f"{__package__}.modeling_layers": "DreamerPreTrainedModel", **_MODEL_OF}
"""Modules that import `modeling_auto` on their way, and what each has once it is complete."""


def register_auto_classes() -> None:
    """Registers every configuration, model and the video processor with transformers' auto classes, lazily."""
    register_post_import_hook(_register_configs, f"{_AUTO}.configuration_auto")
    register_post_import_hook(_register_video_processor, f"{_AUTO}.video_processing_auto")
    # Models wait until whichever of our modules imported `modeling_auto` is complete.
    for module in (f"{_AUTO}.modeling_auto", *_COMPLETE_WITH):
        register_post_import_hook(_register_models, module)


def _configs():
    from .configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig

    return DreamerTokenizerConfig, DreamerDynamicsConfig, DreamerWorldConfig


def _register_configs(module) -> None:
    for config in _configs():
        module.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models(_) -> None:
    auto = sys.modules.get(f"{_AUTO}.modeling_auto")
    half_imported = (
        name in sys.modules and not hasattr(sys.modules[name], last) for name, last in _COMPLETE_WITH.items()
    )
    if auto is None or any(half_imported):
        return
    models = [getattr(import_module(name), cls) for name, cls in _MODEL_OF.items()]
    for config, model in zip(_configs(), models):
        auto.AutoModel.register(config, model, exist_ok=True)


def _register_video_processor(module) -> None:
    from .video_processing_dreamer import DreamerVideoProcessor

    for config in _configs():
        module.AutoVideoProcessor.register(config, DreamerVideoProcessor, exist_ok=True)
