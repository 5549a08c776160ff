"""Dreamer 4 world models as first-class Hugging Face models (arXiv 2509.24527).

Names are imported when they are first used: `import dreamer_hf` alone loads neither torch nor transformers.
"""

import sys
from importlib import import_module

from .registration import ImportWatcher, register_imported

__version__ = "0.2.0"

_MODULE_OF = {
    "AgentEpisode": "agent_episode",
    "DreamerAgentConfig": "configuration_dreamer_agent",
    "DreamerAgentModel": "modeling_dreamer_agent",
    "DreamerAgentOutput": "modeling_dreamer_agent",
    "DreamerCache": "cache_dreamer",
    "DreamerDynamicsConfig": "configuration_dreamer",
    "DreamerDynamicsModel": "modeling_dreamer_dynamics",
    "DreamerDynamicsOutput": "modeling_dreamer_dynamics",
    "DreamerGenerateOutput": "generation_dreamer",
    "DreamerGenerationConfig": "generation_config_dreamer",
    "DreamerLatentRollout": "latent_rollout",
    "DreamerRollout": "rollout",
    "DreamerRolloutOutput": "latent_rollout",
    "DreamerTokenizerConfig": "configuration_dreamer",
    "DreamerTokenizerModel": "modeling_dreamer_tokenizer",
    "DreamerTokenizerOutput": "modeling_dreamer_tokenizer",
    "DreamerVideoProcessor": "video_processing_dreamer",
    "DreamerWorldConfig": "configuration_dreamer",
    "DreamerWorldModel": "modeling_dreamer_world",
    "DreamerWorldOutput": "modeling_dreamer_world",
    "ImaginedTrajectories": "imagination",
    "RolloutNoise": "generation_dreamer",
    "SeededNoise": "seeded_noise",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        message = f"{name} needs {error.name}, which is not installed: pip install 'dreamer_hf[torch]'."
        raise ModuleNotFoundError(message, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


sys.meta_path.insert(0, ImportWatcher())
register_imported()
