"""What every script shares: how a user's mistake is told, how output appears, and how the process ends."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def new_output_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder that takes its final name `path` when the block ends well, and vanishes when it does not.

    Raises:
        FileExistsError: `path` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} is not empty: choose a new --output_dir, or delete it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
