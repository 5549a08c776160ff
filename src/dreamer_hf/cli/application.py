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
    """

    help: str
    options: str
    run: str

    def load(self, name: str) -> click.Command:
        """Return the command; only the module of the options is imported now."""
        from .flags import OptionsCommand

        return OptionsCommand(name, _load(self.options), lambda options: _load(self.run)(options), self.help)


@dataclass(frozen=True)
class Family:
    """A group of subcommands."""

    help: str
    entries: "dict[str, Entry | Family]"

    def load(self, name: str) -> click.Group:
        """Return the group; its subcommands are loaded one by one, when they are asked for."""
        return LazyGroup(name, self.entries, self.help)


class LazyGroup(click.Group):
    """A click group whose subcommands are imported when they are used."""

    def __init__(self, name: str, entries: dict[str, Entry | Family], help: str, **settings):
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
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])


def _load(place: str):
    module, name = place.split(":")
    return getattr(import_module(f"dreamer_hf.{module}"), name)


COMMANDS = {
    "demo": Entry("Steer the shipped world and write videos of it.", "demo:DemoOptions", "demo:run_demo"),
    "play": Entry(
        "Play a world with the keyboard, the mouse, a joystick or a script.",
        "play.play_options:PlayOptions",
        "cli.commands:play",
    ),
    "serve": Entry("Serve a world to browsers and policies.", "serve.serve_options:ServeOptions", "serve:serve"),
    "record": Entry(
        "Record scripted play in the PushT simulator as a LeRobotDataset.",
        "pusht.pusht_options:RecordOptions",
        "cli.commands:record",
    ),
    "evaluate": Entry(
        "Measure a world on held-out episodes.",
        "evaluation.evaluation_options:EvaluationOptions",
        "evaluation.evaluate:evaluate",
    ),
}


@click.command(cls=LazyGroup, entries=COMMANDS, help="Dreamer 4 world models: convert data, train, play, serve.")
@click.version_option(__version__, message="dreamer_hf %(version)s")
def dreamer() -> None:
    """Entry point of the command line."""


def run(command: Sequence[str] = ()) -> None:
    """Run the command line of this process.

    Args:
        command: subcommand to put in front of the arguments.

    Raises:
        ValueError: The arguments cannot be understood.
        SystemExit: `--help` and `--version` end the process.
    """
    try:
        status = dreamer.main([*command, *sys.argv[1:]], prog_name="dreamer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        status = 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "dreamer"
        raise ValueError(f"{error.format_message()} See `{command} --help`.") from error
    except click.ClickException as error:
        raise ValueError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    if isinstance(status, int) and status:
        sys.exit(status)
