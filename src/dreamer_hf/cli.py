"""What every script shares: how a user's mistake is told, how output appears, and how the process ends."""

import os
import sys
from collections.abc import Callable

from huggingface_hub.errors import StrictDataclassError


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's `main` and turns bad input into one sentence and exit status 2.

    `ValueError` and `OSError` (missing file, folder that is not empty, full disk) are how the library reports bad
    input, and `StrictDataclassError` how a configuration does; their message is printed without a traceback. Anything
    else is our own bug and keeps its traceback.
    """
    try:
        main()
    except BrokenPipeError:  # Whoever reads our output, such as `head`, has seen enough: nothing more can be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, StrictDataclassError) as error:
        # A configuration wraps our sentence in its own words.
        sentence = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
