"""Click options made of the fields of an options class (see `dreamer_hf.options`)."""

from dataclasses import MISSING

import click

from ..options import Flag, flags_of


class OptionsCommand(click.Command):
    """A command whose flags are the fields of an options class, and whose callback takes an instance of it.

    A flag may be written with underscores or with dashes. A flag of several values takes all values that follow it:
    `--to 400 120`.

    Args:
        name: name of the command.
        options: options class.
        run: function of an instance of it. What it returns, if anything, is printed.
        help: description for `--help`.
        example: command line for `--help`.
    """

    def __init__(self, name: str, options: type, run, help: str, example: str = ""):
        self._flags = {flag.name: flag for flag in flags_of(options)}

        def callback(**values) -> None:
            result = run(options(**values))
            if result is not None:
                click.echo(result)

        settings = {"token_normalize_func": _underscores, "help_option_names": ["--help", "-h"]}
        params = [_parameter(flag) for flag in self._flags.values()]
        epilog = f"\b\nExample:\n  {example}" if example else None
        help = "\n\n".join(f"\b\n{part}" if part.startswith("    ") else part for part in help.split("\n\n"))
        super().__init__(name, callback=callback, params=params, help=help, epilog=epilog, context_settings=settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before each of several values, which is how click takes them."""
        expanded, flag = [], None
        for arg in args:
            if arg.startswith("--"):
                known = self._flags.get(_underscores(arg[2:]))
                flag = arg if known is not None and known.many else None
            elif flag is not None:
                expanded.append(flag)
            if arg != flag:
                expanded.append(arg)
        return super().parse_args(ctx, expanded)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their groups."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            flag = self._flags.get(param.name)
            if flag is not None and flag.positional:
                title, record = "Arguments", (param.make_metavar(ctx), flag.help)
            else:
                title = f"{flag.group.capitalize()} options" if flag is not None and flag.group else "Options"
                record = param.get_help_record(ctx)
            sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _underscores(name: str) -> str:
    return name.replace("-", "_")


def _parameter(flag: Flag) -> click.Parameter:
    required = flag.default is MISSING
    if flag.positional:
        return click.Argument([flag.name], type=flag.type, required=required, metavar=flag.metavar)
    attributes = {"help": flag.help, "required": required}
    if flag.type is bool:
        attributes |= {"is_flag": True, "default": flag.default}
    else:
        kind = click.Choice(flag.choices) if flag.choices else flag.type
        attributes |= {"type": kind, "metavar": flag.metavar, "multiple": flag.many}
        if not required:
            attributes |= {"default": flag.default, "show_default": flag.default not in (None, ())}
    return click.Option([f"--{flag.name}"], **attributes)
