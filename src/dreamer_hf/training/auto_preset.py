"""What `--preset auto` chooses: sizes, rates and minutes for a data set and a machine.

`choose_options` is a pure function of facts about the two. What it leaves open is as in the preset `BASE`. The tiny
size and the dynamics model of the small one were trained and measured (docs/decisions, 0001 to 0005); the rest was
not.
"""

import math
from dataclasses import dataclass

from ..configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig
from .flops import BACKWARD, decoder_flops, dynamics_flops, encoder_flops

BASE = "robot-tiny"
"""Preset that all other options come from."""
TOKENIZER_SHARE = 0.4
"""Share of the minutes that goes to the tokenizer: no dream is sharper than its frames."""
CPU_RATE, GPU_RATE = 4e10, 3e13
"""Floating-point operations per second that trainings of these sizes reached: one thread of a CPU, one H200."""
PATCH_SIZES = range(4, 65)
USUAL_PATCH = 14
"""Patches of about this many pixels across have worked: 12 for 96 x 72, 16 for 64 x 64."""
WINDOWS = (32, 24, 16, 12, 8, 6, 4)
LATENTS, FEWER_LATENTS = 12, 8
"""Latent tokens of a camera, and those of each of three cameras or more, which the dynamics model sees at once."""
NUMBERS_PER_TOKEN = 16
"""Components of an action or a state that one token carries."""
TOKENIZER_BATCH = 64
LONGEST_TRAINING = 300
"""Passes over the data after which a training ends, if its minutes do not end it before."""


@dataclass(frozen=True)
class DataFacts:
    """What a data set says.

    Attributes:
        frame_size: height and width of a frame in pixels.
        num_cameras: number of cameras.
        action_dim: width of an action; 0 without actions.
        state_dim: width of the state; 0 without one.
        num_frames: number of frames to train on, of each camera.
        episode_length: number of frames that a window may have so that most episodes are used.
    """

    frame_size: tuple[int, int]
    num_cameras: int
    action_dim: int
    state_dim: int
    num_frames: int
    episode_length: int


@dataclass(frozen=True)
class Machine:
    """What there is to train on: GiB of memory of the GPU, 0 for a CPU."""

    gpu_memory: float = 0.0

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"a GPU of {self.gpu_memory:.0f} GiB" if self.gpu_memory else "a CPU"

    @property
    def rate(self) -> float:
        """Floating-point operations per second."""
        return GPU_RATE if self.gpu_memory else CPU_RATE


@dataclass(frozen=True)
class Choice:
    """An option, the value that was chosen for it, and why."""

    option: str
    value: object
    reason: str


@dataclass(frozen=True)
class Size:
    """One size of both models, and what it takes to train it.

    Attributes:
        name: of the size.
        tokenizer, dynamics: options of the two models.
        usual_patches, most_patches: number of patches of a frame to aim at, and the most that can be trained.
        frames_per_step: frames in a batch of the dynamics model.
        fewest_frames: frames of data that are worth it.
        gpu_memory: GiB that it takes; 0: a CPU will do.
    """

    name: str
    tokenizer: dict
    dynamics: dict
    usual_patches: int
    most_patches: int
    frames_per_step: int
    fewest_frames: int
    gpu_memory: float


def _layers(width: int, tokenizer_layers: int, dynamics_layers: int) -> tuple[dict, dict]:
    heads = {"hidden_size": width, "num_attention_heads": width // 32}
    layers = {"num_encoder_layers": tokenizer_layers, "num_decoder_layers": tokenizer_layers, "time_every": 3}
    return heads | layers, heads | {"num_hidden_layers": dynamics_layers, "time_every": 2}


SIZES = (
    Size("tiny", *_layers(128, 3, 8), 32, 128, 128, 0, 0),
    Size("small", *_layers(256, 3, 8), 48, 320, 2048, 8_000, 8),
    Size("medium", *_layers(512, 6, 12), 64, 576, 2048, 50_000, 40),
)
"""From the smallest to the largest."""
ENOUGH_STEPS = 800
"""Steps of each model that a size has to reach in the given minutes: those of the guide docs/first-world.md."""


def choose_options(data: DataFacts, machine: Machine, minutes: float) -> dict[str, list[Choice]]:
    """Choose the options of a tokenizer and of a dynamics model for a data set, a machine and a time.

    Args:
        data: facts about the data.
        machine: what there is to train on.
        minutes: for both models together.

    Returns:
        Choices for "tokenizer" and for "dynamics", in the order to show them. Together with the preset `BASE` they are
        all options of a run.

    Raises:
        ValueError: the frames cannot be divided into patches, or the episodes are too short.
    """
    size, why = _choose_size(data, machine, minutes)
    steps = [max(1, int(number)) for number in _steps(data, machine, minutes, size)]
    common = [Choice(name, value, f"{size.name}: {why}") for name, value in size.tokenizer.items()]
    tokenizer = [*common, *_frame_choices(data, size), *_schedule(data, minutes, TOKENIZER_SHARE, steps[0])]
    tokenizer.append(Choice("per_device_batch_size", TOKENIZER_BATCH, "single frames, as different as possible"))
    common = [Choice(name, value, f"{size.name}: {why}") for name, value in size.dynamics.items()]
    dynamics = [*common, *_window_choices(data, size), *_schedule(data, minutes, 1 - TOKENIZER_SHARE, steps[1])]
    dynamics.append(Choice("bootstrap_start_step", steps[1] // 8, "fine steps are learned first"))
    if size.gpu_memory:
        for choices in (tokenizer, dynamics):
            choices.append(Choice("mixed_precision", "bf16", "as in all presets for GPUs"))
    return {"tokenizer": tokenizer, "dynamics": dynamics}


def _choose_size(data: DataFacts, machine: Machine, minutes: float) -> tuple[Size, str]:
    """Return the largest size that memory, data and time suffice for, and what stops the next one."""
    chosen = SIZES[0]
    for size in SIZES[1:]:
        if machine.gpu_memory < size.gpu_memory:
            return chosen, f"{size.name} takes a GPU of {size.gpu_memory:g} GiB"
        if data.num_frames < size.fewest_frames:
            return chosen, f"{size.name} takes {size.fewest_frames:,} frames"
        if min(_steps(data, machine, minutes, size)) < ENOUGH_STEPS:
            return chosen, f"{size.name} takes more minutes on {machine.name}"
        chosen = size
    return chosen, "the largest"


def _steps(data: DataFacts, machine: Machine, minutes: float, size: Size) -> tuple[float, float]:
    """Return about how many steps of tokenizer and dynamics model the minutes are enough for."""
    frame = {choice.option: choice.value for choice in _frame_choices(data, size)}
    window = {choice.option: choice.value for choice in _window_choices(data, size)}
    tokenizer = DreamerTokenizerConfig(image_size=list(data.frame_size), latent_dim=8, **size.tokenizer, **frame)
    dynamics = DreamerDynamicsConfig(
        num_latent_tokens=data.num_cameras * tokenizer.num_latent_tokens,
        latent_dim=8,
        context_length=window["context_length"],
        **size.dynamics,
    )
    of_frame = encoder_flops(tokenizer, 1) + decoder_flops(tokenizer, 1)
    # Every frame is seen twice, as context and denoised; a quarter of the rows makes two more passes.
    of_window = (1 + BACKWARD + 0.5) * dynamics_flops(dynamics, 2 * window["sequence_length"])
    per_step = (1 + BACKWARD) * TOKENIZER_BATCH * of_frame, window["per_device_batch_size"] * of_window
    seconds = 60 * minutes * TOKENIZER_SHARE, 60 * minutes * (1 - TOKENIZER_SHARE)
    return tuple(time * machine.rate / operations for time, operations in zip(seconds, per_step))


def _frame_choices(data: DataFacts, size: Size) -> list[Choice]:
    patch = choose_patch(data.frame_size, size)
    height, width = data.frame_size
    number = height * width // patch**2
    latents = LATENTS if data.num_cameras < 3 else FEWER_LATENTS
    cameras = "one camera" if data.num_cameras == 1 else f"each of {data.num_cameras} cameras"
    return [
        Choice("patch_size", patch, f"divides {width} x {height} into {number} patches"),
        Choice("num_latent_tokens", latents, f"for {cameras}; each sees the whole frame, so that they agree"),
    ]


def choose_patch(frame_size: tuple[int, int], size: Size) -> int:
    """Return the side of the patches for frames of this height and width.

    Raises:
        ValueError: no patch divides the frames into few enough patches; the sentence names a size that works.
    """
    height, width = frame_size
    fitting = [patch for patch in PATCH_SIZES if height % patch == 0 and width % patch == 0]
    fitting = [patch for patch in fitting if height * width // patch**2 <= size.most_patches]
    if not fitting:
        rows, columns = fitting_size(frame_size, size)
        raise ValueError(
            f"--preset auto finds no patch size for frames of {width} x {height} pixels: convert the data again with "
            f"--width {columns} --height {rows}, or give --patch_size and other options without this preset."
        )
    return min(fitting, key=lambda patch: _patch_cost(height * width / patch**2, patch, size))


def _patch_cost(number: float, patch: int, size: Size) -> float:
    return abs(math.log(number / size.usual_patches)) + abs(math.log(patch / USUAL_PATCH))


def fitting_size(frame_size: tuple[int, int], size: Size) -> tuple[int, int]:
    """Return the height and width nearest to those of a frame that patches of 12 or 16 pixels divide.

    Frames of too many patches are made smaller.
    """
    height, width = frame_size
    candidates = []
    for patch in (12, 16):
        scale = min(1.0, patch * math.sqrt(size.most_patches / (height * width)))
        rows, columns = _grid(frame_size, patch, scale)
        while rows * columns > size.most_patches:
            scale *= 0.95
            rows, columns = _grid(frame_size, patch, scale)
        stretch = abs(math.log(rows * width / (columns * height)))
        candidates.append((stretch, (rows * patch, columns * patch)))
    return min(candidates)[1]


def _grid(frame_size: tuple[int, int], patch: int, scale: float) -> tuple[int, int]:
    """Return rows and columns of the patches that come nearest to a frame at some scale."""
    rows, columns = (max(1, round(side * scale / patch)) for side in frame_size)
    return rows, columns


def _window_choices(data: DataFacts, size: Size) -> list[Choice]:
    window = next((length for length in WINDOWS if length <= data.episode_length), None)
    if window is None:
        raise ValueError(
            f"--preset auto needs episodes of at least {WINDOWS[-1]} frames, but most have {data.episode_length}: "
            "convert the data again at a higher --target_fps, or leave short episodes out with --min_episode_length."
        )
    batch = max(1, size.frames_per_step // window)
    reason = "most episodes are that long" if window == WINDOWS[0] else f"most episodes have {data.episode_length}"
    choices = [
        Choice("sequence_length", window, reason),
        Choice("context_length", max(2, window // 2), "half a window"),
        Choice("num_context_frames", min(3, window // 4), "of a window, without a loss"),
        Choice("per_device_batch_size", batch, f"{batch * window} frames in a step"),
    ]
    for kind, width in (("action", data.action_dim), ("state", data.state_dim)):
        if width:
            tokens = -(-width // NUMBERS_PER_TOKEN)
            choices.append(Choice(f"num_{kind}_tokens", tokens, f"for {width} numbers"))
    return choices


def _schedule(data: DataFacts, minutes: float, share: float, steps: int) -> list[Choice]:
    own = round(share * minutes, 2)
    most = max(1000, LONGEST_TRAINING * data.num_frames // TOKENIZER_BATCH)
    return [
        Choice("max_train_minutes", own, f"{share:.0%} of {minutes:g}; about {steps:,} steps on an idle machine"),
        Choice("max_train_steps", most, f"{LONGEST_TRAINING} passes over {data.num_frames:,} frames"),
        Choice("lr_warmup_steps", min(50, max(1, steps // 10)), "a tenth of the steps, at most 50"),
        Choice("eval_steps", max(100, steps // 3), "about three evaluations"),
    ]


__all__ = ["BASE", "Choice", "DataFacts", "Machine", "choose_options"]
