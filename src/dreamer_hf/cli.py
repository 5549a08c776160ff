"""What every script shares: how a user's mistake is told, and how the process ends."""

import sys
from collections.abc import Callable


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's `main` and turns bad input into one sentence and exit status 2.

    `ValueError` and `OSError` (missing file, folder that is not empty, full disk) are how the library reports bad
    input, so their message is printed as it stands, without a traceback. Anything else is our own bug and keeps its
    traceback.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
