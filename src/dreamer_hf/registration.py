"""Registration with `AutoConfig`, `AutoModel` and `AutoVideoProcessor`, when one of these is imported.

Importing them takes seconds, and conversion workers, clients of a served world and `--help` need none of them. So
`import dreamer_hf` imports nothing: an importer watches for transformers' auto classes (docs/decisions/0008).
"""

import sys
from importlib.abc import MetaPathFinder

_AUTO = "transformers.models.auto."


def _configs() -> tuple:
    from .configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig
    from .configuration_dreamer_agent import DreamerAgentConfig

    return DreamerTokenizerConfig, DreamerDynamicsConfig, DreamerWorldConfig, DreamerAgentConfig


def _register_configs(auto) -> None:
    for config in _configs():
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models(auto) -> None:
    from .modeling_dreamer_agent import DreamerAgentModel
    from .modeling_dreamer_world import DreamerDynamicsModel, DreamerTokenizerModel, DreamerWorldModel

    for model in (DreamerTokenizerModel, DreamerDynamicsModel, DreamerWorldModel, DreamerAgentModel):
        auto.AutoModel.register(model.config_class, model, exist_ok=True)


def _register_video_processor(auto) -> None:
    from .video_processing_dreamer import DreamerVideoProcessor

    for config in _configs():
        auto.AutoVideoProcessor.register(config, DreamerVideoProcessor, exist_ok=True)


_pending = {
    f"{_AUTO}configuration_auto": _register_configs,
    f"{_AUTO}modeling_auto": _register_models,
    f"{_AUTO}video_processing_auto": _register_video_processor,
}
"""What is still to be registered, by the module of the auto class."""


def register_imported() -> None:
    """Register our classes with the auto classes that are imported by now."""
    for name in [name for name in _pending if name in sys.modules]:
        # An import during a registration may already have made the next one.
        if register := _pending.pop(name, None):
            register(sys.modules[name])


class ImportWatcher(MetaPathFinder):
    """Importer that registers our classes after an import of an auto class.

    Our modules import auto classes, too, and are incomplete while they do. So registration waits for the end of the
    outermost import of one of our modules or of an auto class.
    """

    def __init__(self):
        self.depth = 0

    def find_spec(self, name, path, target=None):
        if not name.startswith((f"{__package__}.", _AUTO)):
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._watched(spec.loader.exec_module)
        return spec

    def _watched(self, exec_module):
        def exec_watched(module) -> None:
            self.depth += 1
            try:
                exec_module(module)
                if self.depth == 1:
                    register_imported()
            finally:
                self.depth -= 1

        return exec_watched


__all__ = ["ImportWatcher", "register_imported"]
