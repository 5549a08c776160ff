"""What LeRobot does to observations and actions of an agent: names, a batch axis, and the device."""

from lerobot.processor import make_default_pre_post_processors

from .configuration_dreamer_policy import DreamerConfig


def make_dreamer_pre_post_processors(config: DreamerConfig, dataset_stats: dict | None = None) -> tuple:
    """Return the pipelines before and after the policy; nothing is normalized, because the model does that."""
    return make_default_pre_post_processors(config, dataset_stats)


__all__ = ["make_dreamer_pre_post_processors"]
