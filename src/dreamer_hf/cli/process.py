"""How every command ends: bad input is one sentence and an exit status, and bugs keep their traceback."""

import os
import sys
from collections.abc import Callable

from ..extras import EXTRAS


def run_script(main: Callable[[], object]) -> None:
    """Run the `main` of a script, turn bad input into one sentence and exit status 2, and end the process.

    `ValueError` and `OSError` (a missing file, a folder that is not empty, a full disk) are how the library reports
    bad input, and `StrictDataclassError` is how a configuration does. The message of these, and of a missing extra, is
    printed without a traceback. Any other exception is a bug and keeps its traceback.
    """
    try:
        main()
    except BrokenPipeError:  # The reader of our output, such as `head`, has closed it: nothing more can be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)


def _sentence(error: Exception) -> str | None:
    """Return what a user has to know about an error; None if the error is a bug."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] in EXTRAS:
        module = error.name.partition(".")[0]
        return f"this needs {module}, which is not installed: pip install 'dreamer_hf[{EXTRAS[module]}]'."
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    from huggingface_hub.errors import StrictDataclassError  # takes too long to import for `dreamer --help`

    if isinstance(error, StrictDataclassError):  # Its message wraps ours in extra lines.
        return str(error.__cause__ or error)
    return None
