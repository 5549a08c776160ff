"""Fitting trust: on made-up signals whose use is known, and the command on a tiny world."""

import numpy as np
import pytest

from dreamer_hf.cli import main
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation.trust_calibration import WatchedDreams, fit_trust, watch_dreams
from dreamer_hf.evaluation.trust_options import TrustOptions
from dreamer_hf.rollout_schedule import RolloutSchedule
from dreamer_hf.trust import load_trust
from tiny import random_world

SCHEDULE = RolloutSchedule(4, 0.9, 8)


def made_up(num_episodes=40, length=20) -> WatchedDreams:
    """Distances that grow with the spread and have nothing to do with the other signals."""
    rng = np.random.default_rng(0)
    shape = (num_episodes, length)
    spread = np.exp(rng.normal(size=shape))
    signals = {
        "reencoding": np.exp(rng.normal(size=shape)),
        "spread": spread,
        "step": np.tile(np.arange(1.0, length + 1), (num_episodes, 1)),
    }
    return WatchedDreams(signals, spread * np.exp(0.3 * rng.normal(size=shape)), 0.01, 0.02)


def test_only_signals_that_help_are_used_and_the_probability_is_calibrated():
    dreams = made_up()
    dreams.distances[0, :3] = np.nan  # nothing was found in these
    trust = fit_trust(dreams, "position", 1.0, SCHEDULE)
    assert trust.signals == ("spread",) and trust.weights[0] > 0 and trust.auroc > 0.95
    assert trust.num_frames == 40 * 20 - 3 and trust.num_inference_steps == 4
    distrust = 1 - trust(dreams.signals)
    likely = (distrust > 0.4) & (distrust < 0.6)
    assert (dreams.distances[likely] > 1).mean() == pytest.approx(0.5, abs=0.15)


def test_dreams_that_say_nothing_about_the_tolerance_are_refused():
    with pytest.raises(ValueError, match=r"never leave reality by more than 1e\+09: choose another --tolerance"):
        fit_trust(made_up(), "position", 1e9, SCHEDULE)
    with pytest.raises(ValueError, match=r"always leave reality"):
        fit_trust(made_up(), "position", 1e-9, SCHEDULE)
    with pytest.raises(ValueError, match="one episode is too few"):
        fit_trust(made_up(num_episodes=1), "position", 1.0, SCHEDULE)


@pytest.mark.slow
def test_the_command_fits_tests_and_saves_what_dreams_show(tiny_shards, tmp_path, capsys):
    world, data = random_world(), ShardDataset(tiny_shards, None, split="all")
    world.save_pretrained(tmp_path / "world")
    options = TrustOptions(model="", data_dir="", measure="image", num_context_frames=4, num_dream_frames=6)
    dreams = watch_dreams(world, data, options, world)
    assert dreams.distances.shape == dreams.signals["spread"].shape == (6, 6)
    assert (dreams.signals["reencoding"] > 0).all() and dreams.watched_seconds > 0
    farther = np.sort(dreams.distances[dreams.distances > 0])
    assert len(farther) > 1, "a random world is about as far from reality as its random tokenizer"
    tolerance = farther[: len(farther) // 2 + 1].mean()  # between two distances
    command = ["--model", str(tmp_path / "world"), "--data_dir", str(tiny_shards), "--split", "all"]
    command += ["--num_context_frames", "4", "--num_dream_frames", "6", "--engine", "torch"]
    command += ["--test_dir", str(tiny_shards), "--tolerance", str(tolerance)]
    main("trust", arguments=[*command, "--save"])
    said = capsys.readouterr().out
    share = f"{100 * (dreams.distances > tolerance).mean():.0f}"
    assert f"36 frames, of which {share} % are more than" in said and "Test: 6 other episodes" in said
    assert load_trust(tmp_path / "world").num_episodes == 6
    main("trust", arguments=[*command, "--output", str(tmp_path / "other.json")])
    assert load_trust(tmp_path / "other.json") == load_trust(tmp_path / "world")


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [([], "give --save, or --output"), (["--save", "--tolerance=-1"], "a positive number for --tolerance")],
)
def test_the_command_refuses_bad_options(tmp_path, capsys, extra, sentence):
    with pytest.raises(SystemExit) as ended:
        main("trust", arguments=["--model", str(tmp_path), "--data_dir", str(tmp_path), *extra])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
