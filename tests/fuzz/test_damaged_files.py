"""Damaged files of every format, with fixed seeds: refused in one sentence or read right, never anything else.

`make fuzz` tries more of them (damage.py).
"""

import time

import pytest

from fuzz.damage import Hang, fuzz, judge, time_limit
from fuzz.formats import FORMATS, Format

pytestmark = pytest.mark.slow
SEED, MAX_TRIES, SECONDS = 17, 12, 0.9
"""Of processor time for each format: tries stop early on a slow machine."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_damage_is_refused_or_harmless(form, examples):
    form.read(form.example(examples))  # Making the example is not part of the time.
    end = time.process_time() + SECONDS
    verdicts, wrong = fuzz(form, examples, examples / "damaged", SEED, MAX_TRIES, lambda: time.process_time() > end)
    assert not wrong, "\n".join(wrong)
    assert sum(verdicts.values()), "not even one try"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ValueError("a sentence."), "refused clearly"),
        (ValueError("two\nlines"), "wrong"),
        (KeyError("name"), "wrong"),
        (OSError("missing."), "refused clearly"),
        (None, "wrong"),
    ],
)
def test_the_judge_tells_them_apart(error, verdict, tmp_path):
    def read(folder):
        if error:
            raise error
        return 1

    assert judge(Format("any", lambda folder: folder, "*", read), tmp_path, 2)[0] == verdict


def test_a_hang_ends():
    with pytest.raises(Hang), time_limit(1):
        time.sleep(5)
