"""The section of a model card that shows the evaluation of the model."""

from pathlib import Path

from ..data.files import replacing
from .report import EVALUATION_NAME, read_report
from .tables import evaluation_table

CARD_NAME = "README.md"
SECTION_TITLE = "## Measured on held-out episodes"
SECTION_BEGIN, SECTION_END = "<!-- evaluation -->", "<!-- end of evaluation -->"
"""`update_model_card` replaces what is between these."""


def update_model_card(folder: Path) -> None:
    """Replace the evaluation in the model card of `folder` with the table of the `evaluation.json` next to it.

    Only the text between two markers changes. A card without them gets a new section at its end.

    Raises:
        FileNotFoundError: the folder has no card or no evaluation.
        ValueError: the evaluation is damaged.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CARD_NAME} to update: write one, or omit --update_card.")
    text = path.read_text(encoding="utf-8")
    if SECTION_BEGIN not in text or SECTION_END not in text:
        text = f"{text.rstrip()}\n\n{SECTION_TITLE}\n\n{SECTION_BEGIN}\n{SECTION_END}\n"
    before, rest = text.split(SECTION_BEGIN, 1)
    after = rest.split(SECTION_END, 1)[1]
    table = evaluation_table(read_report(folder / EVALUATION_NAME))
    with replacing(path) as temporary:
        temporary.write_text(f"{before}{SECTION_BEGIN}\n{table}\n{SECTION_END}{after}", encoding="utf-8")


__all__ = ["CARD_NAME", "SECTION_BEGIN", "SECTION_END", "SECTION_TITLE", "update_model_card"]
