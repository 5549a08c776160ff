"""The version of LeRobot that the plug-ins need."""

from importlib import metadata

OLDEST = (0, 6)


def check_lerobot() -> None:
    """Raise an ImportError unless LeRobot is installed, and recent enough to be extended by this package."""
    try:
        installed = metadata.version("lerobot")
    except metadata.PackageNotFoundError as error:
        raise ImportError("these plug-ins need LeRobot: pip install 'dreamer_hf[lerobot]'.") from error
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise ImportError(
            f"LeRobot {installed} is installed, and dreams need {'.'.join(map(str, OLDEST))} or later: pip install -U "
            "'dreamer_hf[lerobot]'."
        )


__all__ = ["check_lerobot"]
