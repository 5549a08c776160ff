import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import time

import pytest
import torch
import torch.distributed.checkpoint as sharded
from accelerate import Accelerator

from dreamer_hf.data.files import lock_folder
from dreamer_hf.training.argument_parsing import ARGUMENTS_FILE
from dreamer_hf.training.checkpoint_integrity import refuse_code
from dreamer_hf.training.checkpoints import (
    STATE_FILE,
    DamagedCheckpoint,
    TrainerState,
    check_checkpoint,
    check_same_run,
    claim_output_dir,
    list_checkpoints,
    publish_files,
    save_checkpoint,
    write_state,
)
from dreamer_hf.training.run_metrics import MetricsLog
from tiny import loss_curve, read_metrics, run_script, script_command, script_environment, train

STATE = TrainerState(step=3, seconds=1.0, seed=0, rows_per_step=8, model_config={"hidden_size": 16})


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / ARGUMENTS_FILE).write_text("{}")
    for step in (2, 10, 9):
        add_checkpoint(tmp_path, step)
    (tmp_path / "tmp-checkpoint-11").mkdir()  # being written when the kill came
    (tmp_path / "checkpoint-12").mkdir()  # copied without its state
    return tmp_path


def add_checkpoint(folder, step):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "optimizer.bin").write_bytes(bytes(range(100)))
    write_state(checkpoint, dataclasses.replace(STATE, step=step))


def claim(folder, resume=None):
    with claim_output_dir(folder, resume) as checkpoint:
        return checkpoint


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
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not the folder of a training run"):
        claim(other, "latest")


def test_a_run_without_a_checkpoint_is_a_new_run(tmp_path):
    assert claim(tmp_path / "new", "latest") is None
    assert not (tmp_path / "new").exists(), "nothing was written to it"
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
        ({"rows_per_step": 16}, "8 rows per step, not 16"),
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

    publish_files(tmp_path, write)
    publish_files(tmp_path, write)
    with pytest.raises(OSError, match="no space"):
        publish_files(tmp_path, fail)
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


def damage_optimizer(checkpoint, content):
    (checkpoint / "optimizer.bin").write_bytes(content)


def damage_state(checkpoint, **changes):
    """Another value in the state, and a checksum that fits."""
    state = json.loads((checkpoint / STATE_FILE).read_text())
    del state["checksum"]
    (checkpoint / STATE_FILE).write_text(json.dumps({**state, **changes}))


DAMAGES = {
    "truncated file": (lambda c: damage_optimizer(c, b"short"), "optimizer.bin has 5 bytes instead of 100"),
    "flipped bit": (lambda c: damage_optimizer(c, bytes([1, *range(1, 100)])), "does not match its checksum"),
    "missing file": (lambda c: (c / "optimizer.bin").unlink(), "optimizer.bin is missing"),
    "empty state": (lambda c: (c / STATE_FILE).write_text(""), "trainer_state.json cannot be read"),
    "list": (lambda c: (c / STATE_FILE).write_text("[]"), "trainer_state.json cannot be read"),
    "no keys": (lambda c: (c / STATE_FILE).write_text("{}"), "written by an earlier version"),
    "changed state": (
        lambda c: (c / STATE_FILE).write_text((c / STATE_FILE).read_text().replace('"seed": 0', '"seed": 1')),
        "trainer_state.json cannot be read",
    ),
    "word for a step": (lambda c: damage_state(c, step="10"), "is not one of a checkpoint"),
    "number for a config": (lambda c: damage_state(c, model_config=5), "is not one of a checkpoint"),
    "another step": (lambda c: damage_state(c, step=10**9), "belongs to step 1000000000"),
    "newer version": (lambda c: damage_state(c, format_version=3, future=1), "written by a newer version"),
    "no list of files": (lambda c: damage_state(c, files=None), "does not list its files"),
    "state of another": (
        lambda c: shutil.copy(c.with_name("checkpoint-2") / STATE_FILE, c / STATE_FILE),
        "belongs to step 2",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_sentence(run_folder, caplog, kind):
    damage, message = DAMAGES[kind]
    check_checkpoint(run_folder / "checkpoint-10")
    damage(run_folder / "checkpoint-10")
    with pytest.raises(DamagedCheckpoint, match=message) as caught:
        claim(run_folder, str(run_folder / "checkpoint-10"))
    assert "\n" not in str(caught.value)
    assert claim(run_folder, "latest") == run_folder / "checkpoint-9"
    assert f"{caught.value} Resuming from checkpoint-9 instead." in caplog.text


def test_a_run_without_an_intact_checkpoint_does_not_start_again(run_folder):
    for step in (2, 9, 10):
        damage_optimizer(run_folder / f"checkpoint-{step}", b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be resumed\. .*checkpoint-10 is damaged"):
        claim(run_folder, "latest")


def test_a_checkpoint_replaces_the_damaged_one_of_the_same_step(run_folder):
    save_checkpoint(Accelerator(cpu=True), run_folder, dataclasses.replace(STATE, step=12))
    assert check_checkpoint(run_folder / "checkpoint-12").step == 12


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    folder = tmp_path / "run"
    with claim_output_dir(folder, None), pytest.raises(BlockingIOError, match="another running process is writing to"):
        claim(folder)
    with claim_output_dir(folder, None):
        (folder / "metrics.jsonl").write_text("")
    with pytest.raises(FileExistsError, match="is not empty"):
        claim(folder)


def test_data_loading_processes_do_not_keep_the_lock_of_a_killed_run(tmp_path):
    """They live for some seconds longer than the run."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        with lock_folder(tmp_path):
            worker = context.Process(target=time.sleep, args=(60,))
            worker.start()
            sender.send(worker.pid)
            time.sleep(60)

    process = context.Process(target=run)
    process.start()
    worker = receiver.recv()
    try:
        process.kill()
        process.join()
        with lock_folder(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_two_runs_started_together_do_not_share_a_folder(tmp_path, data_dir, configs):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    argv += ["--max_train_steps", 3]
    runs = [
        subprocess.Popen(
            script_command("tokenizer", *argv), env=script_environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2]
    (error,) = (text for run, text in zip(runs, errors) if run.returncode)
    assert "error: another running process is writing to" in error or "is not empty: choose another" in error
    assert "Traceback" not in error
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]


class Bomb:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", ["custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl", "average.safetensors", STATE_FILE]
)
def test_resuming_runs_no_code(tmp_path, data_dir, configs, tokenizer_run, name):
    """Not even if the record of its files was made to fit."""
    folder, sign = tmp_path / "run", tmp_path / "code-has-run"
    shutil.copytree(tokenizer_run, folder)
    for checkpoint in list_checkpoints(folder):
        state = check_checkpoint(checkpoint)
        with (checkpoint / name).open("wb") as file:
            torch.save(Bomb(sign), file)
        if name != STATE_FILE:
            write_state(checkpoint, state)
    argv = ["--output_dir", folder, "--resume_from_checkpoint", "latest"]
    message = "trainer_state.json cannot be read" if name == STATE_FILE else r"checkpoint-16 cannot be loaded \("
    if name == "random_states_0.pkl":  # Accelerate ignores it, as every draw has its own generator.
        train("tokenizer", *argv)
        assert loss_curve(folder) == loss_curve(tokenizer_run)
    else:
        with pytest.raises(ValueError, match=message):
            train("tokenizer", *argv)
    assert not sign.exists()


def test_sharded_checkpoints_run_no_code(tmp_path):
    sign = tmp_path / "code-has-run"

    def save(folder, **values):
        writer = sharded.FileSystemWriter(tmp_path / folder)
        sharded.save(
            {"weight": torch.ones(3, dtype=torch.bfloat16), "step": 3, **values}, storage_writer=writer, no_dist=True
        )
        return tmp_path / folder

    refuse_code(save("good"))
    with pytest.raises(ValueError, match="might be code"):
        refuse_code(save("value", extra=Bomb(sign)))
    metadata = save("metadata") / ".metadata"
    content = pickle.loads(metadata.read_bytes())
    content.planner_data = Bomb(sign)
    metadata.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="might be code"):
        refuse_code(metadata.parent)
    assert not sign.exists()


@pytest.mark.slow
def test_a_damaged_run_resumes_from_an_earlier_checkpoint_with_the_same_losses(tmp_path, tokenizer_run):
    """Given only its folder."""
    folder = tmp_path / "run"
    shutil.copytree(tokenizer_run, folder)
    for path in (folder / "checkpoint-16" / "optimizer.bin", folder / "checkpoint-15" / "model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    result = run_script("tokenizer", "--resume_from_checkpoint", "latest", "--output_dir", folder)
    assert "checkpoint-16 is damaged: optimizer.bin has" in result.stderr and "Traceback" not in result.stderr
    assert "Resuming from checkpoint-10 instead." in result.stderr
    assert loss_curve(folder) == loss_curve(tokenizer_run)
    assert check_checkpoint(folder / "checkpoint-16").step == 16
