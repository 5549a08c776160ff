"""What a run says: how much work it does and how fast, how long it takes, and what its result means."""

import json
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dreamer_hf.training.flops import decoder_flops, dynamics_flops, encoder_flops
from dreamer_hf.training.run_metrics import format_duration, matmul_peak, peak_memory
from dreamer_hf.training.verdicts import dynamics_verdict, longer, tokenizer_verdict
from tiny import arguments_of, rand, read_metrics, tiny_dynamics, tiny_tokenizer, train

CPU = torch.device("cpu")


def count(work) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", [{}, {"time_every": 2}, {"num_key_value_heads": 2}], ids=str)
def test_operations_counted_from_a_config_are_those_that_pytorch_counts(changes):
    """Attention in eager, which PyTorch can see into."""
    frames, changes = 5, changes | {"attn_implementation": "eager"}
    tokenizer, dynamics = tiny_tokenizer(**changes), tiny_dynamics(**changes)
    video, latents = rand(1, frames, 3, 16, 16), rand(1, frames, 3, 5)
    assert encoder_flops(tokenizer.config, frames) == count(lambda: tokenizer.encode(video))
    assert decoder_flops(tokenizer.config, frames) == count(lambda: tokenizer.decode(latents))
    ids = torch.zeros(1, frames, dtype=torch.long)
    one_pass = count(lambda: dynamics(latents, ids, ids, actions=rand(1, frames, 2)))
    assert dynamics_flops(dynamics.config, frames) == one_pass


def test_the_peak_of_this_machine_is_measured_once():
    assert matmul_peak(CPU, torch.float32) == matmul_peak(CPU, torch.float32) > 1e8
    assert 2**26 < peak_memory(CPU) < 2**40


@pytest.mark.slow
def test_a_run_says_how_long_it_takes_and_traces_steps(tmp_path, data_dir, configs, capsys):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--max_train_steps", 8, "--profile", 2, "--eval_steps", 0)
    printed = capsys.readouterr()
    assert "left for 3 steps on this machine" in printed.err and "MFU" in printed.err
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    assert len([event for event in events if event["name"].startswith("ProfilerStep")]) == 2
    assert "for the mean image" in printed.out and "above the mean image" in printed.out
    line = read_metrics(tmp_path / "run")[-1]
    assert line["mfu"] == pytest.approx(line["tflops_per_second"] * 1e12 / matmul_peak(CPU, torch.float32))
    assert line["memory_gib"] > 0.01


@pytest.mark.slow
def test_a_time_limit_is_reported_in_steps(tmp_path, data_dir, configs, capsys):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--max_train_steps", 1_000_000, "--max_train_minutes", 0.03, "--eval_steps", 0)
    assert "--max_train_minutes ends this run after 0.03 minutes, at about step " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("psnr", "earlier", "message"),
    [
        (18.8, None, r"warning: 1\.2 dB below the mean image means that this tokenizer has not even learned the back"),
        (20.3, None, "0.3 dB above the mean image means that this tokenizer has learned only the background"),
        (24.1, None, r"4\.1 dB above the mean image: too blurred for dynamics; train longer\.$"),
        (26.0, 23.0, r"6\.0 dB above the mean image: too blurred for dynamics; train about 2x longer\.$"),
        (26.0, 25.9, "training longer alone will not be enough"),
        (31.0, 28.0, r"11\.0 dB above the mean image: sharp enough to train a dynamics model on\.$"),
    ],
)
def test_the_verdict_on_a_tokenizer(psnr, earlier, message):
    history = [] if earlier is None else [{"step": 500, "eval_psnr": earlier}, {"step": 600, "loss": 1.0}]
    values = {"eval_psnr": psnr, "eval_mean_image_psnr": 20.0}
    verdict = tokenizer_verdict(values, [*history, {"step": 1000, **values}])
    assert verdict.splitlines()[0] == f"held-out reconstruction {psnr:.2f} dB, against 20.00 dB for the mean image."
    assert re.search(message, verdict)


@pytest.mark.parametrize(
    ("psnr", "ratio", "message"),
    [
        (17.0, 1.05, "0.3 dB below repeating the last frame, and it hardly follows the actions yet: not good enough"),
        (19.3, 1.3, "2.0 dB above repeating the last frame, and it begins to follow the actions: not good enough"),
        (24.9, 8.9, "7.6 dB above repeating the last frame, and it follows the actions: good enough to play."),
    ],
)
def test_the_verdict_on_a_dynamics_model(psnr, ratio, message):
    values = {"eval_psnr_1": 27.1, "eval_repeat_psnr_1": 24.5, "eval_psnr_8": psnr, "eval_repeat_psnr_8": 17.3}
    verdict = dynamics_verdict(values | {"eval_action_shuffle_ratio": ratio}, [])
    assert "first frame 27.10 dB, against 24.50 dB for repeating the last real one" in verdict
    assert message in verdict


def test_advice_follows_the_gain_of_the_last_doubling():
    assert longer([(100, 10.0), (500, 18.0), (1000, 20.0)], 22.0) == "train about 2x longer"
    assert longer([(100, 10.0), (500, 18.0), (1000, 20.0)], 20.1) == "train about 1.5x longer"
    assert longer([(1000, 20.0)], 22.0) == "train longer"
    assert "not be enough" in longer([(500, 21.0), (1000, 20.0)], 22.0)


def test_durations_are_readable():
    texts = [format_duration(seconds) for seconds in (0.2, 42, 60 * 42, 60 * 125)]
    assert texts == ["1 s", "42 s", "42 min", "2 h 05 min"]


def test_the_work_of_a_step_follows_its_options(data_dir, tokenizer_run):
    """Copies double the frames, bootstrap rows add two passes, and frozen weights save their gradients."""
    from dreamer_hf.training.dynamics_objective import DynamicsObjective

    def flops(step=0, **values):
        options = {
            "data_dir": str(data_dir),
            "tokenizer": str(tokenizer_run),
            "cache_latents": True,
            "hidden_size": 16,
        }
        options |= {"num_attention_heads": 2, "num_hidden_layers": 4, "sequence_length": 4, "lpips_net": "none"}
        objective = DynamicsObjective(arguments_of("dynamics", **options | values), 0, 1, CPU)
        return objective.flops(2, 4, step)

    plain = flops(bootstrap_fraction=0)
    assert flops(bootstrap_fraction=0.5) == pytest.approx(plain * 4 / 3)
    late = {"bootstrap_fraction": 0.5, "bootstrap_start_step": 9}
    assert (flops(8, **late), flops(9, **late)) == pytest.approx((plain, plain * 4 / 3))
    assert flops(bootstrap_fraction=0, context_copies=1) > 2 * plain
    assert flops(bootstrap_fraction=0, cache_latents=False) > plain


@pytest.mark.slow
def test_a_run_chooses_its_threads_once(tmp_path, data_dir, configs, capsys):
    """A resumed run takes the number over, as another one would round differently."""
    folder, available = tmp_path / "run", torch.get_num_threads()
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder, "--max_train_steps", 1]
    torch.set_num_threads(2)
    try:
        train("tokenizer", *argv)
        assert re.search(r"Using [12] of 2 CPU threads \(.* ms per step; .*--threads N", capsys.readouterr().out)
        chosen = torch.get_num_threads()
        assert json.loads((folder / "training_arguments.json").read_text())["threads"] == chosen
        torch.set_num_threads(3 - chosen)
        train("tokenizer", "--output_dir", folder, "--resume_from_checkpoint", "latest", "--max_train_steps", 2)
        assert torch.get_num_threads() == chosen and "CPU threads" not in capsys.readouterr().out
    finally:
        torch.set_num_threads(available)
