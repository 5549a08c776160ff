"""The options of ranking policies. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import ENGINES, option, ray_option

SUMMARIES = ("gain", "last", "mean", "best", "success")
ACTION_FORMS = ("auto", "absolute", "world")


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """The options of `rank`."""

    world: str = option(
        "pusht-tiny", help="World: the name of one that ships with the package, a folder, or a Hub repository."
    )
    policies: tuple[str, ...] = option(
        help="Policies: folders or repositories of LeRobot policies, player:push (or play, rest, random; "
        "player:push:0.5 has half of its actions at random), or package.module:function. A suffix adds noise to the "
        "actions: PATH@noise=0.2.",
    )
    real: str | None = option(
        None,
        help="Environment to play the same episodes in for real: gym_pusht/PushT-v0, or package.module:function.",
    )
    score: tuple[str, ...] = option(
        ("pusht:coverage",),
        help="What an episode is worth: pusht:coverage, pusht:goal, pusht:reach:X,Y, pusht:push:right, or "
        "package.module:function. The first one orders the table.",
    )
    summary: str = option(
        "gain",
        choices=SUMMARIES,
        help="What counts at a horizon. gain: the score there minus that at the start; last: the score there; mean, "
        "best: of all frames up to it; success: whether it was solved by then.",
    )
    episodes: int = option(100, help="Episodes of each policy.")
    steps: int = option(64, help="Frames of an episode.")
    seed: int = option(0, help="Seed of the first episode: its start, its noise, and the policy's own randomness.")
    start: str | None = option(
        None,
        help="Without --real: where dreams begin, a shard folder, a LeRobot dataset, a video or an image. Defaults to "
        "the start frames saved with the world.",
    )
    policy_actions: str = option(
        "auto",
        choices=ACTION_FORMS,
        help="What the policies' actions are. absolute: positions, of which a world of relative actions gets the "
        "differences; world: those of the world; auto: absolute for PushT, otherwise world.",
    )
    distrust_below: float = option(0.5, help="A dream is distrusted from the frame on whose trust is below this.")
    until_distrusted: bool = option(
        False, help="Let the score of a dream stay what it was on the last frame before it was distrusted."
    )
    other_actions: bool = option(
        False,
        help="Negative control: every dream gets the actions that the policy chose for the next episode's dream.",
    )
    batch_size: int = option(50, help="Episodes to play at a time.")
    num_inference_steps: int | None = option(
        None, help="Denoising steps per frame, a power of two. Defaults to what is saved with the world."
    )
    engine: str = option("auto", choices=ENGINES, help="What computes the dreams, as in dreamer play.")
    device: str | None = option(None, help="Device to run on: cpu, cuda, ... Defaults to the GPU if there is one.")
    threads: int | None = option(None, help="CPU threads to use. Defaults to PyTorch's or ONNX Runtime's choice.")
    cache_dir: str | None = option(
        None,
        help="Folder that keeps what was played, so that an interrupted ranking resumes and real episodes are not "
        "played again for another world.",
    )
    output_dir: str = option(help="New or empty folder for the results.")
    ray: str | None = ray_option()

    def __post_init__(self):
        for name in ("episodes", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected a positive int for --{name}, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"expected a seed of 0 or more, got {self.seed}.")
        twice = sorted({name for name in self.policies if self.policies.count(name) > 1})
        if twice:
            raise ValueError(f"--policies names {twice[0]} twice: leave one out.")
        if not 0 <= self.distrust_below <= 1:
            raise ValueError(f"expected a number from 0 to 1 for --distrust_below, got {self.distrust_below}.")
        if self.real is not None and self.start is not None:
            raise ValueError("--real brings its own starts: leave out --start, or --real.")


__all__ = ["RankOptions"]
