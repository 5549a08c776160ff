"""The training scripts, really run: what they leave, that they resume exactly, and how they fail."""

import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModel, AutoVideoProcessor

from dreamer_hf import DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.training.checkpoints import list_checkpoints
from dreamer_hf.training.run_metrics import MACHINE_METRICS
from dreamer_hf.training.trainer import Trainer
from tiny import (
    EXAMPLES,
    loss_curve,
    read_metrics,
    run_script,
    script_command,
    script_environment,
    train,
    write_moving_square,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_tokenizer_run_leaves_a_model_metrics_and_checkpoints(tokenizer_run):
    model = AutoModel.from_pretrained(tokenizer_run)
    assert isinstance(model, DreamerTokenizerModel)
    assert model.config.image_mean != [0.5, 0.5, 0.5]  # the data's own
    processor = AutoVideoProcessor.from_pretrained(tokenizer_run)
    assert processor.size["height"] == 16
    metrics = read_metrics(tokenizer_run)
    assert [line["step"] for line in metrics] == list(range(1, 17))
    assert {"loss", "mse", "learning_rate", *MACHINE_METRICS} <= metrics[0].keys()
    assert [line["step"] for line in metrics if "eval_psnr" in line] == [8, 16]
    names = [path.name for path in sorted((tokenizer_run / "images").iterdir())]
    assert names == [f"masked_reconstructed_real-{step:07d}.png" for step in (8, 16)]
    assert [path.name for path in list_checkpoints(tokenizer_run)] == [f"checkpoint-{s}" for s in (5, 10, 15, 16)]


def test_dynamics_run_leaves_a_world_that_dreams(dynamics_run, tokenizer_run):
    world = DreamerWorldModel.from_pretrained(dynamics_run)
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    for name, weight in tokenizer.state_dict().items():
        assert torch.equal(world.tokenizer.state_dict()[name], weight)
    assert world.dynamics.config.action_names == ["dy", "dx"]
    assert world.dynamics.config.action_units == ["px", "px"]
    assert world.dynamics.config.action_stats["std"] == [1.4, 1.4]
    assert (world.dynamics.config.fps, world.dynamics.config.action_offset) == (10.0, 1)
    assert world.dynamics.latent_head.weight.abs().sum() > 0  # starts at zero: it has learned
    starts = load_start_frames(dynamics_run)
    rollout = world.start_rollout(starts[0])
    assert rollout.step(torch.ones(1, 2)).pixel_values.shape == (1, 3, 16, 16)
    measured = {"eval_flow_loss", "eval_psnr_1", "eval_ssim_3", "eval_repeat_psnr_3", "eval_action_shuffle_ratio"}
    assert {"flow_loss", "bootstrap_loss", *measured} <= read_metrics(dynamics_run)[-1].keys()
    image = cv2.imread(str(dynamics_run / "images" / "real_dreamed_misled-0000008.png"))
    assert image.shape == (6 * 20, 3 * 20, 3)  # two windows of three rows, three dreamed frames each


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_losses_to_the_last_bit(tmp_path, data_dir, configs, tokenizer_run):
    folder = tmp_path / "run"
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder]
    process = subprocess.Popen(script_command("tokenizer", *argv), env=script_environment(), stderr=subprocess.DEVNULL)
    while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < 7:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()  # SIGKILL
    process.wait()
    assert not (folder / "model.safetensors").exists()
    run_script("tokenizer", *argv, "--resume_from_checkpoint", "latest")
    assert loss_curve(folder) == loss_curve(tokenizer_run)
    ours, theirs = (DreamerTokenizerModel.from_pretrained(path).state_dict() for path in (folder, tokenizer_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # the averaged weights too


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_dynamics_resume_repeats_the_curve(tmp_path, data_dir, configs, tokenizer_run, optimizer):
    folder, copy = tmp_path / "run", tmp_path / "copy"
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run, "--cache_latents"]
    argv += ["--optimizer", optimizer, "--gradient_accumulation_steps", 2, "--per_device_batch_size", 2]
    argv += ["--bootstrap_start_step", 4, "--checkpoints_total_limit", 2]
    train("dynamics", *argv, "--output_dir", folder)
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-6", "checkpoint-8"]
    metrics = read_metrics(folder)
    assert ["bootstrap_loss" in line for line in metrics] == [False] * 4 + [True] * 4
    copy.mkdir()
    for name in ("training_arguments.json", "metrics.jsonl"):
        shutil.copy(folder / name, copy / name)
    shutil.copytree(folder / "checkpoint-6", copy / "checkpoint-6")
    train("dynamics", *argv, "--output_dir", copy, "--resume_from_checkpoint", "latest")
    assert loss_curve(copy) == loss_curve(folder)


HALF_BATCH = ["--per_device_batch_size", 2]


def run_on_two_processes(*words) -> None:
    """Runs a script and its arguments by examples/launch/torchrun.sh."""
    environment = script_environment() | {"NUM_PROCESSES": "2", "MASTER_PORT": str(free_port())}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [str(EXAMPLES / "launch" / "torchrun.sh"), *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_adapters_train_on_two_processes_as_on_one(tmp_path, data_dir, configs, dynamics_run):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--pretrained", dynamics_run]
    argv += ["--lora_rank", 2, "--max_train_steps", 4]
    train("dynamics", *argv, "--output_dir", tmp_path / "one")
    run_on_two_processes(*script_command("dynamics", *argv, *HALF_BATCH, "--output_dir", tmp_path / "two")[1:])
    one, two = loss_curve(tmp_path / "one"), loss_curve(tmp_path / "two")
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4)


OWN_CONTEXT = ["--context_copies", 1, "--pure_noise_fraction", 0.5, "--own_context_fraction", 0.2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharded", "keys"), [(False, []), (True, []), (True, OWN_CONTEXT)], ids=["ddp", "fsdp2", "fsdp2-own-context"]
)
def test_two_processes_train_like_one_with_twice_the_batch(tmp_path, data_dir, configs, tokenizer_run, sharded, keys):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run]
    argv += ["--max_train_steps", 4, *keys]
    train("dynamics", *argv, "--output_dir", tmp_path / "one")
    wrapper = [Path(__file__).parent / "fsdp2_on_cpu.py"] if sharded else []
    run_on_two_processes(
        *wrapper, *script_command("dynamics", *argv, *HALF_BATCH, "--output_dir", tmp_path / "two")[1:]
    )
    one, two = loss_curve(tmp_path / "one"), loss_curve(tmp_path / "two")
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4)
    was_sharded = (tmp_path / "two" / "checkpoint-4" / "pytorch_model_fsdp_0").exists()
    assert was_sharded == sharded
    worlds = [DreamerWorldModel.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two")]
    for name, weight in worlds[0].items():
        torch.testing.assert_close(worlds[1][name], weight, atol=2e-3, rtol=1e-2)


@pytest.mark.slow
def test_frames_need_not_be_square(tmp_path, configs):
    """From the data to a saved world, its processor, its start frames and its card."""
    data = write_moving_square(tmp_path / "wide", width=32)
    argv = ["--data_dir", data, "--max_train_steps", 2]
    train("tokenizer", "--config", configs["tokenizer"], *argv, "--output_dir", tmp_path / "tokenizer")
    argv += ["--tokenizer", tmp_path / "tokenizer", "--long_sequence_length", 8, "--image_fraction", 0.3]
    train("dynamics", "--config", configs["dynamics"], *argv, "--output_dir", tmp_path / "world")
    world = DreamerWorldModel.from_pretrained(tmp_path / "world")
    assert world.config.tokenizer_config.image_size == [16, 32]
    start = load_start_frames(tmp_path / "world")[0]
    rollout = world.start_rollout(start)
    assert rollout.step([[1.0, 0.0]]).pixel_values.shape == (1, 3, 16, 32)
    assert AutoVideoProcessor.from_pretrained(tmp_path / "world").size == {"height": 16, "width": 32}
    assert "16 x 32 pixels" in (tmp_path / "world" / "README.md").read_text()
    image = cv2.imread(str(next((tmp_path / "tokenizer" / "images").glob("*.png"))))
    assert image.shape[1] > image.shape[0]


def test_other_objectives_are_recorded_with_the_model(tmp_path, data_dir, configs, tokenizer_run, dynamics_run):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run]
    argv += ["--max_train_steps", 2, "--output_dir", tmp_path / "run"]
    variant = ["--prediction", "v", "--ramp_weight", "false", "--bootstrap_fraction", 0, "--action_offset", 0]
    train("dynamics", *argv, *variant)
    world = DreamerWorldModel.from_pretrained(tmp_path / "run")
    config = world.config.dynamics_config
    assert (config.prediction, config.step_size_conditioning, config.action_offset) == ("v", False, 0)
    start = load_start_frames(tmp_path / "run")[0]
    assert start.action_mask.all(), "with offset 0 even an episode's first frame has an action"
    paper = DreamerWorldModel.from_pretrained(dynamics_run).config.dynamics_config
    assert (paper.prediction, paper.step_size_conditioning, paper.action_offset) == ("x", True, 1)
    resume = ["--resume_from_checkpoint", "latest", "--max_train_steps", 3]
    with pytest.raises(ValueError, match="was trained with prediction=v, not x"):
        train("dynamics", *argv, *variant[2:], "--prediction", "x", *resume)


def test_a_checkpoint_from_before_a_key_existed_is_resumed(tmp_path, data_dir, configs, tokenizer_run):
    shutil.copytree(tokenizer_run, tmp_path / "run")
    state_file = list_checkpoints(tmp_path / "run")[-1] / "trainer_state.json"
    state = json.loads(state_file.read_text())
    assert state["model_config"].pop("latent_group_size") == 1
    del state["checksum"]
    state_file.write_text(json.dumps(state))
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    argv += ["--resume_from_checkpoint", "latest", "--max_train_steps", 17]
    with pytest.raises(ValueError, match="trained with latent_group_size=1, not 2"):
        train("tokenizer", *argv, "--latent_group_size", 2)
    train("tokenizer", *argv)


@pytest.mark.slow
def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, data_dir, configs):
    folder = tmp_path / "run"
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder]
    train("tokenizer", *argv, "--max_train_steps", 2)
    weights = (folder / "checkpoint-2" / "model.safetensors").read_bytes()
    again = ["--resume_from_checkpoint", "latest", "--max_train_steps", 9, "--learning_rate", "1e30"]
    result = run_script("tokenizer", *argv, *again, status=2)
    message = result.stderr.splitlines()[-1]
    assert message.startswith("error: the loss or its gradient is not a finite number at step ")
    assert f"the last good checkpoint is {folder}/checkpoint-" in message
    assert "Traceback" not in result.stderr
    assert (folder / "checkpoint-2" / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_time_limit_ends_the_run_with_an_annealed_learning_rate(tmp_path, data_dir, configs):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--eval_steps", 0]
    train(
        "tokenizer", *argv, "--output_dir", tmp_path / "first", "--max_train_steps", 1
    )  # the first step imports much
    limit = ["--max_train_steps", 100_000, "--max_train_minutes", 0.06]
    train("tokenizer", *argv, "--output_dir", tmp_path / "limited", *limit)
    metrics = read_metrics(tmp_path / "limited")
    assert 2 < len(metrics) < 100_000
    assert metrics[-1]["learning_rate"] < 0.2 * max(line["learning_rate"] for line in metrics)
    assert (tmp_path / "limited" / "model.safetensors").exists()


def test_a_full_disk_stops_the_run_and_leaves_earlier_checkpoints(tmp_path, data_dir, configs):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path]
    train("tokenizer", *argv, "--max_train_steps", 1)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # files cannot grow: to the writer, a full disk
    try:
        with pytest.raises(
            OSError, match=r"failed with .* MB free .*: free some space.*earlier checkpoints are intact"
        ):
            train("tokenizer", *argv, "--max_train_steps", 2, "--resume_from_checkpoint", "latest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert not list(tmp_path.glob("tmp-*"))
    train("tokenizer", *argv, "--max_train_steps", 2, "--resume_from_checkpoint", "latest")


def test_a_finished_run_can_be_resumed_and_prolonged(tmp_path, data_dir, configs, tokenizer_run, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tokenizer_run, folder)
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder]
    train("tokenizer", *argv, "--resume_from_checkpoint", "latest")
    assert loss_curve(folder) == loss_curve(tokenizer_run)
    assert "dB for the mean image" in capsys.readouterr().out
    train("tokenizer", *argv, "--resume_from_checkpoint", "latest", "--max_train_steps", 18)
    assert [line["step"] for line in read_metrics(folder)] == list(range(1, 19))


def test_tensorboard_gets_numbers_images_and_no_paths(tmp_path, data_dir, configs):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--max_train_steps", 2, "--report_to", "tensorboard")
    logs = EventAccumulator(str(tmp_path / "run" / "dreamer_hf")).Reload()
    assert {"loss", "eval_psnr", "learning_rate"} <= set(logs.Tags()["scalars"])
    assert logs.Tags()["images"] == ["masked_reconstructed_real"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "run" / "dreamer_hf").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in written and str(data_dir).encode() not in written


@pytest.mark.slow
def test_wandb_gets_numbers_images_and_no_paths(tmp_path, data_dir, configs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--max_train_steps", 2, "--report_to", "wandb")
    (record,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    written = record.read_bytes()
    for name in ("eval_psnr", "learning_rate", "masked_reconstructed_real", "max_train_steps"):
        assert name.encode() in written
    assert str(tmp_path).encode() not in written and str(data_dir).encode() not in written
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/*.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data_dir", "nowhere"], "nowhere"),
        (["--sequence_length", "21"], "no episode in .* is as long as a window of 21 frames"),
        (["--patch_size", "7"], "image_size=16 is not a whole number of patches"),
        (["--train_fraction", "1.0"], "validation split"),
        (["--latent_dim", "0"], "latent_dim"),
        (["--hidden_size", "0"], "hidden_size"),
        (["--num_attention_heads", "0"], "num_attention_heads"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, data_dir, configs, change, message):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run", *change]
    with pytest.raises((ValueError, OSError, StrictDataclassError), match=message):
        train("tokenizer", *argv)
    assert not (tmp_path / "run").exists()


def test_data_and_tokenizer_that_do_not_fit_are_refused(tmp_path, data_dir, configs, tokenizer_run, dynamics_run):
    large = write_moving_square(tmp_path / "large", size=24)
    argv = ["--config", configs["dynamics"], "--output_dir", tmp_path / "run"]
    with pytest.raises(ValueError, match=r"takes frames of 16x16 pixels .* but the data has 24x24"):
        train("dynamics", *argv, "--data_dir", large, "--tokenizer", tokenizer_run)
    DreamerWorldModel.from_pretrained(dynamics_run).dynamics.save_pretrained(tmp_path / "dynamics")
    with pytest.raises(ValueError, match="holds a dreamer_dynamics, not a tokenizer"):
        train("dynamics", *argv, "--data_dir", data_dir, "--tokenizer", tmp_path / "dynamics")
    with pytest.raises(FileNotFoundError, match=r"there is no tokenizer at .*nowhere"):
        train("dynamics", *argv, "--data_dir", data_dir, "--tokenizer", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_another_architecture_is_not_resumed(tmp_path, data_dir, configs, tokenizer_run):
    folder = tmp_path / "run"
    shutil.copytree(tokenizer_run, folder)
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder]
    with pytest.raises(ValueError, match="latent_dim=4, not 8"):
        train("tokenizer", *argv, "--resume_from_checkpoint", "latest", "--latent_dim", "8")
    with pytest.raises(ValueError, match="averaged weights=True, not False"):
        train("tokenizer", *argv, "--resume_from_checkpoint", "latest", "--ema_decay", 0)
    with pytest.raises(FileExistsError, match="is not empty"):
        train("tokenizer", *argv)


def test_a_run_is_not_resumed_on_other_data(tmp_path, data_dir, configs, tokenizer_run, dynamics_run):
    folder = tmp_path / "run"
    shutil.copytree(dynamics_run, folder)
    argv = ["--config", configs["dynamics"], "--output_dir", folder, "--resume_from_checkpoint", "latest"]
    more = write_moving_square(tmp_path / "more", episodes=9)
    with pytest.raises(ValueError, match="training episodes="):
        train("dynamics", *argv, "--data_dir", more, "--tokenizer", tokenizer_run)
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    tokenizer.encoder.latent_tokens.data += 1
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer fingerprint="):
        train("dynamics", *argv, "--data_dir", data_dir, "--tokenizer", tmp_path / "tokenizer")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_ignores_still_ends_the_run(tmp_path, data_dir, configs, monkeypatch):
    """Python ignores exceptions in finalizers, and an interrupt may arrive in one."""

    class Finalizer:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def step(trainer, batches):
        Finalizer()
        return optimizer_step(trainer, batches)

    optimizer_step = Trainer._optimizer_step
    monkeypatch.setattr(Trainer, "_optimizer_step", step)
    before = signal.getsignal(signal.SIGINT)  # where a shell starts tests in the background, it is ignored
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    with pytest.raises(KeyboardInterrupt):
        train("tokenizer", *argv, "--max_train_steps", 3)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1]
    assert signal.getsignal(signal.SIGINT) is before
