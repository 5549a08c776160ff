"""What the metrics of a finished run mean: is the model good enough, and if not, how much longer would it have to
train?

The thresholds are those of models that were tried (docs/decisions): tokenizers 9 dB or more above the mean image
gave worlds whose objects kept their shape, and dynamics models 3 dB above repeating the last frame, with 1.6 times the
error under other actions, could be steered.
"""

import math

History = list[dict[str, float]]
"""Lines of metrics.jsonl, oldest first."""

PLATEAU_MARGIN = 1.0
"""Decibels above the mean image up to which a tokenizer has learned only the background."""
SHARP_MARGIN = 9.0
"""Decibels above the mean image from which on a dynamics model can be trained."""
MOVING_MARGIN = 3.0
"""Decibels above repeating the last frame from which on a dream shows what moves."""
IGNORED_RATIO, FOLLOWED_RATIO = 1.15, 1.6
"""Error under other actions, relative to that under the real ones, up to which actions are ignored, and from which on
they are followed."""
LONGEST = 20
"""Factor on the steps above which an extrapolation says nothing."""


def tokenizer_verdict(values: dict[str, float], history: History) -> str:
    """Return what the last evaluation of a tokenizer says.

    Args:
        values: metrics of the last evaluation.
        history: lines of metrics.jsonl.
    """
    ours, floor = values["eval_psnr"], values["eval_mean_image_psnr"]
    margin = ours - floor
    text = f"held-out reconstruction {ours:.2f} dB, against {floor:.2f} dB for the mean image."
    if margin < PLATEAU_MARGIN:
        means = "has not even learned the background" if margin < 0 else "has learned only the background"
        return (
            f"{text}\nwarning: {_distance(margin)} the mean image means that this tokenizer {means}. "
            "Train longer, or with another --learning_rate (docs/decisions/0001)."
        )
    if margin < SHARP_MARGIN:
        curve = [(line["step"], line["eval_psnr"]) for line in history if "eval_psnr" in line]
        advice = longer(curve, floor + SHARP_MARGIN)
        return f"{text}\n{margin:.1f} dB above the mean image: too blurred for dynamics; {advice}."
    return f"{text}\n{margin:.1f} dB above the mean image: sharp enough to train a dynamics model on."


def dynamics_verdict(values: dict[str, float], history: History) -> str:
    """Return what the last evaluation of a dynamics model says; arguments as in `tokenizer_verdict`."""
    last = max(int(name.rsplit("_", 1)[1]) for name in values if name.startswith("eval_repeat_psnr_"))
    ratio = values["eval_action_shuffle_ratio"]
    text = (
        f"held-out dream: first frame {values['eval_psnr_1']:.2f} dB, against {values['eval_repeat_psnr_1']:.2f} dB "
        f"for repeating the last real one; frame {last} {values[f'eval_psnr_{last}']:.2f} dB, against "
        f"{values[f'eval_repeat_psnr_{last}']:.2f} dB; with the actions of another window its error is {ratio:.2f} "
        "times as large."
    )
    margin = values[f"eval_psnr_{last}"] - values[f"eval_repeat_psnr_{last}"]
    repeated = f"{_distance(margin)} repeating the last frame"
    if ratio < IGNORED_RATIO:
        follows = "it hardly follows the actions yet"
    else:
        follows = "it follows the actions" if ratio >= FOLLOWED_RATIO else "it begins to follow the actions"
    if margin >= MOVING_MARGIN and ratio >= FOLLOWED_RATIO:
        return f"{text}\n{repeated}, and {follows}: good enough to play."
    curve = [(line["step"], line[f"eval_psnr_{last}"]) for line in history if f"eval_psnr_{last}" in line]
    advice = longer(curve, values[f"eval_repeat_psnr_{last}"] + MOVING_MARGIN)
    return f"{text}\n{repeated}, and {follows}: not good enough to play; {advice}."


def _distance(margin: float) -> str:
    return f"{abs(margin):.1f} dB {'above' if margin >= 0 else 'below'}"


def longer(curve: list[tuple[int, float]], target: float) -> str:
    """Return the advice to train longer, with a factor if the curve tells one.

    The curve is extrapolated by what the last doubling of the steps has gained.

    Args:
        curve: steps and the values of a metric that should grow, in the order of the steps.
        target: the value that it should reach.
    """
    if len(curve) < 2 or curve[-1][1] >= target:
        return "train longer"
    step, value = curve[-1]
    earlier = min(curve[:-1], key=lambda point: abs(point[0] - step / 2))
    gain = (value - earlier[1]) / math.log2(step / earlier[0])
    doublings = (target - value) / gain if gain > 0 else math.inf
    if doublings > math.log2(LONGEST):
        return "training longer alone will not be enough: try a larger model, more data or another learning rate"
    return f"train about {max(1.5, 2**doublings):.2g}x longer"
