"""What subcommands do that are more than one function of the library."""

import signal


def play(options) -> None:
    """Play a world; a shutdown, too, finishes the recording."""
    from ..play import play

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play(options)


def record(options) -> str:
    """Record PushT."""
    from ..pusht.record import record as record_play

    return f"recorded {record_play(options)}"
