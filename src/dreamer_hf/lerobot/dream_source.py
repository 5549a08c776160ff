"""The options that dreams as an environment and as a robot share: which world, where it begins, how it runs."""

from dataclasses import dataclass

from ..envs.dream_rows import DreamOptions


# LeRobot shows the comments above the fields as its help.
@dataclass(kw_only=True)
class DreamSource:
    """Which world to dream in, where dreams begin, and what computes them."""

    # World: the name of one that ships with dreamer_hf, a folder, or a Hub repository.
    world: str = "pusht-tiny"
    # Where dreams begin: a shard folder, a LeRobot dataset, a video or an image. Defaults to the start frames saved
    # with the world.
    start: str | None = None
    # Which of the start frames to begin from. Defaults to any, as the seed decides.
    start_index: int | None = None
    # Camera to use if start is a LeRobot dataset with several.
    image_key: str | None = None
    # Feature that holds the actions if start is a LeRobot dataset.
    action_key: str = "action"
    # Folder or Hub repository of an adapter for the world.
    adapter: str | None = None
    # What computes the dreams: torch, onnx, or auto: ONNX Runtime on a CPU if it is installed.
    engine: str = "auto"
    # Device of the dreams: cpu, cuda, ... Defaults to the GPU if there is one.
    device: str | None = None
    # Denoising steps per frame, a power of two. Defaults to what is saved with the world.
    num_inference_steps: int | None = None
    # CPU threads. Defaults to what suits the world, found by a short measurement.
    threads: int | None = None

    def dream_options(self) -> DreamOptions:
        """Return these options as those of `DreamRows`."""
        shared = ("start", "image_key", "action_key", "adapter", "engine", "device", "num_inference_steps", "threads")
        return DreamOptions(**{name: getattr(self, name) for name in shared})


__all__ = ["DreamSource"]
