"""Dreamer 4 world models as first-class Hugging Face models (arXiv 2509.24527)."""

from transformers import AutoConfig, AutoModel, AutoVideoProcessor

from .cache_dreamer import DreamerCache
from .configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig
from .generation_dreamer import DreamerGenerateOutput, RolloutNoise
from .modeling_dreamer_dynamics import DreamerDynamicsModel, DreamerDynamicsOutput
from .modeling_dreamer_tokenizer import DreamerTokenizerModel, DreamerTokenizerOutput
from .modeling_dreamer_world import DreamerWorldModel, DreamerWorldOutput
from .rollout import DreamerLatentRollout, DreamerRollout, DreamerRolloutOutput
from .video_processing_dreamer import DreamerVideoProcessor

__version__ = "0.1.0"

_MODELS = {
    DreamerTokenizerConfig: DreamerTokenizerModel,
    DreamerDynamicsConfig: DreamerDynamicsModel,
    DreamerWorldConfig: DreamerWorldModel,
}
for _config, _model in _MODELS.items():
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoVideoProcessor.register(_config, DreamerVideoProcessor, exist_ok=True)

__all__ = [
    "DreamerCache",
    "DreamerDynamicsConfig",
    "DreamerDynamicsModel",
    "DreamerDynamicsOutput",
    "DreamerGenerateOutput",
    "DreamerLatentRollout",
    "DreamerRollout",
    "DreamerRolloutOutput",
    "DreamerTokenizerConfig",
    "DreamerTokenizerModel",
    "DreamerTokenizerOutput",
    "DreamerVideoProcessor",
    "DreamerWorldConfig",
    "DreamerWorldModel",
    "DreamerWorldOutput",
    "RolloutNoise",
]
