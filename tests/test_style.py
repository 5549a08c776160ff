"""Everything that a person reads is written in plain American English: these phrases must not occur.

All of these phrases occurred in this repository. The failure shows a plainer form of each. Names in the code count as
text: `_` matches a space.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "examples", "conversion", "benchmarks", "reference", "docs", "release", ".ci")
SUFFIXES = {".py", ".md", ".js", ".html", ".css", ".yaml", ".yml", ".toml", ".cfg", ".cff", ".sh", ".sbatch", ".ipynb"}

INSTEAD = {
    r"anew": "again",
    r"who(so)?ever": "anyone who, the person who",
    r"begun": "started, began",
    r"at hand": "available",
    r"told": "given, specified, reported",
    r"tells? of": "reports, describes",
    r"(?<!there.)(is|are) no (?!(longer|more|less|fewer|better|worse|different)(?![a-z])|[a-z]+er than)"
    r"[a-z]+": "expected a ...",
    r"holds? still": "does not move, does not change, waits",
    r"for want of": "because there is no",
    r"nothing but": "only",
    r"beside": "next to, with, alongside",
    r"what is left": "the rest, the remaining",
    r"of (its|their|his|our) own": "own, separate",
    r"a hand": "an input",
    r"(go|goes|going|went) on": "continue",
    r"in step with": "synchronized with, together with",
    r"has a say": "contributes, matters",
    r"as (it is|they are)(?! (now|read|stored|written)(?![a-z]))": "unchanged",
    r"in the order in which": "in order, in the order that",
    r"films?": "video",
    r"(?<!group.of.)(?<!groups.of.)pictures?": "image, frame",
    r"beginnings?(?! of)": "start, initial frames",
    r"given frames": "initial frames, context frames",
    r"dreamt": "dreamed, generated",
    r"mend(s|ed|ing)?": "fix",
    r"in vain": "timed out waiting for",
    r"for ever": "forever, without end",
    r"for the eye": "to look at",
    r"(frames|steps|images|times) an? (second|frame|step)": "per second, per frame",
    r"steps a frame": "steps per frame",
    r"exclude each other": "cannot be combined",
    r"(does|do|doing) without": "omit, not use",
    r"lest": "so that ... not",
    r"where(in|upon|of)": "in which",
    r"there(of|upon|in)": "of it",
    r"whence|hence(forth)?|thus": "so, therefore",
    r"of late": "recently",
    r"finds? fault": "rejects, warns",
    r"makes? do": "uses",
    r"to the bit": "bit for bit",
    # British spelling
    # Shards and their index have an array `labelled`: the files of version 1 keep this name.
    r"(?!(?<=[\"'`])labelled[\"'`])(un)?labell(ed|ing)": "labeled",
    r"(colour|behaviour|neighbour|favour)(s|ed|ing|ful|ite)?": "color, behavior, neighbor, favor",
    r"(normal|initial|organ|optim|quant|token|serial|recogn|minim|maxim|visual|summar|synchron|util|general|special)"
    r"is(e|es|ed|ing|ation)": "-ize",
    r"grey|centres?|whilst|amongst|learnt|modelling": "gray, center, while, among, learned, modeling",
}
"""Pattern -> what to write instead."""


def _pattern(phrase: str) -> re.Pattern:
    """Matches a phrase in prose, across lines of a comment, and in names with underscores."""
    gap = r"(?:_|\s+(?:(?:#|//|\*|>)\s+)?)"
    return re.compile(rf"(?<![a-z])(?:{phrase.replace(' ', gap)})(?![a-z])", re.IGNORECASE)


PATTERNS = {_pattern(phrase): instead for phrase, instead in INSTEAD.items()}


def texts() -> list[Path]:
    """The files that people read, except this list."""
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    readable = [path for path in files if path.suffix in SUFFIXES or path.name == "Makefile"]
    return sorted(path for path in readable if path != Path(__file__) and "__pycache__" not in path.parts)


def findings(text: str) -> list[str]:
    found = []
    for pattern, instead in PATTERNS.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, f"line {line}: {' '.join(match[0].split())!r}: write {instead}"))
    return [sentence for _, sentence in sorted(found)]


def _prose(path: Path) -> str:
    """Return the text of a file, without code spans for the changelog: they name what was renamed."""
    text = path.read_text()
    return re.sub(r"`[^`\n]*`", "``", text) if path.name == "CHANGELOG.md" else text


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plain_english(path):
    assert findings(_prose(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "seeds drawn anew",
        "def test_it_goes_on():",
        "# are lost, for\n    # want of room",
        "The colour",
        "0 is no size",
        "is_no_error",
        "kept as they are",
        "labelled = episodes",
        "an unlabelled episode",
    ],
)
def test_a_phrase_would_be_found(text):
    assert len(findings(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "there is no GPU",
        "this is no longer true",
        "test_the_game_is_no_faster_than_the_world",
        "besides",
        "a group of pictures",
        "the actions as they are stored",
        '"labelled"',
        "the array `labelled`",
    ],
)
def test_plain_text_passes(text):
    assert findings(text) == []


if __name__ == "__main__":  # python tests/test_style.py src/dreamer_hf/play: findings in a folder
    import sys

    for file in texts():
        name = file.relative_to(ROOT).as_posix()
        if any(name.startswith(start) for start in sys.argv[1:] or [""]):
            for sentence in findings(_prose(file)):
                print(f"{name}: {sentence}")
