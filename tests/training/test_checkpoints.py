import dataclasses
import json

import pytest

from dreamer_hf.training.arguments import TokenizerArguments
from dreamer_hf.training.checkpoints import (
    ARGUMENTS_FILE,
    STATE_FILE,
    TrainerState,
    check_same_run,
    claim_output_dir,
    list_checkpoints,
    publish,
)
from dreamer_hf.training.run_metrics import MetricsLog

STATE = TrainerState(step=3, seconds=1.0, seed=0, rows_per_step=8, model_config={"hidden_size": 16})


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / ARGUMENTS_FILE).write_text("{}")
    for step in (2, 10, 9):
        add_checkpoint(tmp_path, step)
    (tmp_path / "tmp-checkpoint-11").mkdir()  # being written when the kill came
    (tmp_path / "checkpoint-12").mkdir()  # copied without its marker
    return tmp_path


def add_checkpoint(folder, step):
    (folder / f"checkpoint-{step}").mkdir()
    state = dataclasses.replace(STATE, step=step)
    (folder / f"checkpoint-{step}" / STATE_FILE).write_text(json.dumps(dataclasses.asdict(state)))


def claim(folder, resume=None):
    return claim_output_dir(TokenizerArguments("d", str(folder), resume_from_checkpoint=resume))


def test_the_latest_complete_checkpoint_is_found(run_folder):
    assert [path.name for path in list_checkpoints(run_folder)] == ["checkpoint-2", "checkpoint-9", "checkpoint-10"]
    assert claim(run_folder, "latest") == run_folder / "checkpoint-10"
    assert claim(run_folder, str(run_folder / "checkpoint-10")) == run_folder / "checkpoint-10"


def test_a_folder_that_holds_something_is_not_written_to(tmp_path, run_folder):
    with pytest.raises(FileExistsError, match="not empty: choose another --output_dir"):
        claim(run_folder)
    other = tmp_path / "other"
    other.mkdir()
    assert claim(other) is None
    (other / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not the folder of a training run"):
        claim(other, "latest")


def test_a_run_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    assert claim(tmp_path / "new", "latest") is None
    (tmp_path / ARGUMENTS_FILE).write_text("{}")
    assert claim(tmp_path, "latest") is None


def test_wrong_checkpoints_are_refused(run_folder):
    with pytest.raises(FileNotFoundError, match="checkpoint-12 is not a complete checkpoint"):
        claim(run_folder, str(run_folder / "checkpoint-12"))
    with pytest.raises(ValueError, match=r"later checkpoints than checkpoint-2 \(checkpoint-9, checkpoint-10\)"):
        claim(run_folder, str(run_folder / "checkpoint-2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_config": {"hidden_size": 32}}, "hidden_size=16, not 32"),
        ({"model_config": {}}, "hidden_size=16, not None"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"rows_per_step": 16}, "8 rows a step, not 16"),
    ],
)
def test_another_run_is_refused(change, message):
    check_same_run(STATE, dataclasses.replace(STATE, step=0), "checkpoint-3", {})
    with pytest.raises(ValueError, match=message):
        check_same_run(STATE, dataclasses.replace(STATE, **change), "checkpoint-3", {})


def test_the_final_model_appears_whole_or_not_at_all(tmp_path):
    def write(folder):
        (folder / "config.json").write_text("new")
        (folder / "samples").mkdir()
        (folder / "samples" / "a.txt").write_text("new")

    def fail(folder):
        (folder / "config.json").write_text("half")
        raise OSError("no space left on device")

    publish(tmp_path, write)
    publish(tmp_path, write)
    with pytest.raises(OSError, match="no space"):
        publish(tmp_path, fail)
    assert (tmp_path / "config.json").read_text() == "new"
    assert (tmp_path / "samples" / "a.txt").read_text() == "new"
    assert not (tmp_path / "tmp-final").exists()


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        log.append(step, {"loss": step / 3, "bootstrap_loss": float("nan")})
    with log.path.open("a") as file:
        file.write('{"step": 6, "lo')
    log.truncate(3)
    log.append(4, {"loss": 0.5})
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": s, "loss": s / 3} for s in (1, 2, 3)] + [{"step": 4, "loss": 0.5}]
