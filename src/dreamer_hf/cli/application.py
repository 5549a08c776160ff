"""The command `dreamer`. A subcommand and its options are imported when it is used, so that each starts fast."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import click

from .. import __version__


@dataclass(frozen=True)
class Entry:
    """A subcommand.

    Attributes:
        help: sentence for `dreamer --help`.
        options: where its options class is, as "module:name" in this package.
        run: where the function is that takes an instance of it.
        example: command line for `--help`.
    """

    help: str
    options: str
    run: str
    example: str = ""

    def load(self, name: str) -> click.Command:
        """Return the command; only the module of the options is imported now."""
        from .flags import OptionsCommand

        def run(options):
            return _load(self.run)(options)

        return OptionsCommand(name, _load(self.options), run, self.help, self.example)


@dataclass(frozen=True)
class Passed:
    """A subcommand whose function parses the arguments itself, because presets and YAML files supply options, too.

    Attributes:
        help: sentence for `dreamer --help`.
        run: where the function is, as "module:name" in this package.
        arguments: positional arguments of the function, before the list of arguments and `prog`, the command's name.
    """

    help: str
    run: str
    arguments: tuple[str, ...] = ()

    def load(self, name: str) -> click.Command:
        """Return the command; the function is imported when it runs."""

        @click.command(
            name, add_help_option=False, context_settings={"ignore_unknown_options": True, "help_option_names": []}
        )
        @click.argument("argv", nargs=-1, type=click.UNPROCESSED)
        @click.pass_context
        def run(context, argv):
            _load(self.run)(*self.arguments, list(argv), prog=context.command_path)

        return run


@dataclass(frozen=True)
class Family:
    """A group of subcommands."""

    help: str
    entries: "dict[str, Entry | Passed | Family]"

    def load(self, name: str) -> click.Group:
        """Return the group; its subcommands are loaded one by one, when they are asked for."""
        return LazyGroup(name, self.entries, self.help)


class LazyGroup(click.Group):
    """A click group whose subcommands are imported when they are used."""

    def __init__(self, name: str, entries: dict[str, Entry | Passed | Family], help: str, **settings):
        settings["context_settings"] = {"help_option_names": ["--help", "-h"]}
        super().__init__(name, help=help, **settings)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand, which may be written with underscores or with dashes."""
        name = cmd_name.replace("_", "-")
        return self._entries[name].load(name) if name in self._entries else None

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """Refuse an unknown subcommand with the names of all."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"expected one of {', '.join(self._entries)}, got {args[0]!r}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with their sentences, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, entry.help.split(". ")[0].rstrip(".") + ".") for name, entry in self._entries.items()]
            )


def _load(place: str):
    module, name = place.split(":")
    return getattr(import_module(f"dreamer_hf.{module}"), name)


COMMANDS = {
    "demo": Entry("Steer the shipped world and write videos of it.", "demo:DemoOptions", "demo:run_demo"),
    "play": Entry(
        "Play a world with the keyboard, the mouse, a joystick or a script.",
        "play.play_options:PlayOptions",
        "cli.commands:play",
        "dreamer play --model me/my-world --record dream.mp4",
    ),
    "serve": Entry(
        "Serve a world to browsers and policies.",
        "serve.serve_options:ServeOptions",
        "cli.commands:serve",
        "dreamer serve --model me/my-world --port 8000",
    ),
    "record": Entry(
        "Record scripted play in the PushT simulator, as shards or as a LeRobotDataset.",
        "pusht.pusht_options:RecordOptions",
        "cli.commands:record",
        "dreamer record --output_dir data/pusht-play --episodes 400",
    ),
    "convert": Family(
        "Convert datasets to shards, or published checkpoints to models.",
        {
            "lerobot": Entry(
                "Convert a LeRobotDataset of format v3.0 into a folder of HDF5 shards.",
                "data.command_options:LeRobotOptions",
                "cli.commands:convert",
                "dreamer convert lerobot --repo_id lerobot/pusht --output_dir data/pusht --target_fps 5",
            ),
            "rlds": Entry(
                "Convert an RLDS dataset (tfrecord or array_record) into a folder of HDF5 shards, without TensorFlow.",
                "data.command_options:RldsOptions",
                "cli.commands:convert",
                "dreamer convert rlds --rlds_dir soar/1.0.0 --split success+failure --fps 5 --output_dir data/soar",
            ),
            "video": Entry(
                "Convert a folder of videos into a folder of HDF5 shards. The actions of clip.mp4, if any, are in "
                "clip.npy (frames, action_dim) or clip.csv.",
                "data.command_options:VideoOptions",
                "cli.commands:convert",
                "dreamer convert video --video_dir clips --output_dir data/clips --width 128 --pad_to_square",
            ),
            "table": Entry(
                "Convert a dataset of the `datasets` library into a folder of HDF5 shards. A row is a frame (image "
                "column; rows of an episode follow each other) or an episode (video column).",
                "data.command_options:TableOptions",
                "cli.commands:convert",
                "dreamer convert table --dataset me/frames --image_column image --action_column action "
                "--episode_column episode --output_dir data/frames",
            ),
            "checkpoint": Entry(
                "Convert published Dreamer-V4 .pt checkpoints. Both files make a world, one makes that model.",
                "convert_published:PublishedOptions",
                "convert_published:convert_published",
                "dreamer convert checkpoint --tokenizer tokenizer.pt --dynamics dynamics.pt --output_dir world",
            ),
        },
    ),
    "export": Family(
        "Export a world to run without PyTorch, or an agent for LeRobot.",
        {
            "onnx": Entry(
                "Export a world as ONNX graphs, which dream without PyTorch.",
                "onnx.export_options:OnnxExportOptions",
                "onnx.export_options:export",
                "dreamer export onnx --model me/my-world --output_dir my-world-onnx --dtype float16",
            ),
            "lerobot-policy": Entry(
                "Export an agent as a policy that LeRobot runs: lerobot-eval --policy.path=FOLDER.",
                "policy_export:PolicyExportOptions",
                "policy_export:export_lerobot_policy",
                "dreamer export lerobot-policy --agent me/my-agent --output_dir my-policy --task 1",
            ),
            "web": Entry(
                "Export a world as a web page that plays it in the browser, without a server of ours.",
                "web.web_options:WebOptions",
                "web.web_export:export_web",
                "dreamer export web --model me/my-world --output_dir site --push_to_space me/my-world",
            ),
        },
    ),
    "inspect": Entry(
        "Describe a folder of shards, draw a contact sheet, test its checksums.",
        "data.command_options:InspectOptions",
        "data.inspect_dataset:inspect_shards",
        "dreamer inspect data/pusht --preview sheet.png",
    ),
    "label": Entry(
        "Compute rewards for the episodes of a folder of shards, for agents to learn from.",
        "data.command_options:LabelOptions",
        "labeling:label_shards",
        "dreamer label --data_dir data/pusht --reward pusht:reach:128,128 pusht:reach:384,384",
    ),
    "train": Family(
        "Train a tokenizer, a dynamics model on its latents, or both; or an agent that acts in the world.",
        {
            "world": Passed(
                "Train a tokenizer and a dynamics model, one after the other, in a given time.",
                "training.world_run:main",
            ),
            "tokenizer": Passed("Train a tokenizer on a folder of shards.", "training.runs:main", ("tokenizer",)),
            "dynamics": Passed(
                "Train a dynamics model on the latents of a tokenizer, and save a world.",
                "training.runs:main",
                ("dynamics",),
            ),
            "agent": Passed(
                "Give a world an agent, which learns from labeled episodes to act and to predict rewards.",
                "training.runs:main",
                ("agent",),
            ),
            "dreams": Passed("Improve an agent in the dreams of its world.", "training.runs:main", ("dreams",)),
        },
    ),
    "encode-latents": Entry(
        "Encode a folder of shards once with a frozen tokenizer. Dynamics training then reads latents instead of "
        "frames. They carry the fingerprint of the tokenizer; training refuses them with any other one.",
        "training.encode_options:EncodeOptions",
        "cli.commands:encode_latents",
        "dreamer encode-latents --tokenizer outputs/tokenizer --data_dir data/pusht --output_dir data/pusht-latents",
    ),
    "evaluate": Entry(
        "Measure a world on held-out episodes, against baselines and an upper bound.",
        "evaluation.evaluation_options:EvaluationOptions",
        "cli.commands:evaluate",
        "dreamer evaluate --model outputs/world --data_dir data/pusht --output_dir outputs/evaluation",
    ),
    "trust": Entry(
        "Fit, on held-out episodes, how far the frames of a world's dreams can be believed.",
        "evaluation.trust_options:TrustOptions",
        "evaluation.trust_calibration:calibrate_trust",
        "dreamer trust --model outputs/world --data_dir data/pusht --save",
    ),
    "rank": Entry(
        "Rank policies in a world's dreams, and next to a real environment.",
        "ranking.ranking_options:RankOptions",
        "cli.commands:rank",
        "dreamer rank --world outputs/world --policies me/act player:push --output_dir outputs/ranking",
    ),
}


@click.command(cls=LazyGroup, entries=COMMANDS, help="Dreamer 4 world models: convert data, train, play, serve.")
@click.version_option(__version__, message="dreamer_hf %(version)s")
def dreamer() -> None:
    """Entry point of the command line."""


def invoke(command: click.Command, arguments: Sequence[str], program: str) -> None:
    """Run a command.

    Args:
        command: the command.
        arguments: its arguments.
        program: its name in messages.

    Raises:
        ValueError: The arguments cannot be understood.
        SystemExit: `--help` and `--version` end the process.
    """
    try:
        status = command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        status = 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        raise ValueError(f"{error.format_message()} See `{path} --help`.") from error
    except click.ClickException as error:
        raise ValueError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    if isinstance(status, int) and status:
        sys.exit(status)
