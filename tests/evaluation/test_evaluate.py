"""The whole evaluation: of tiny episodes by the script, and of a real PushT recording."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from commands import run_command
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from dreamer_hf.evaluation.bootstrap import Bootstrap
from dreamer_hf.evaluation.evaluate import evaluate
from dreamer_hf.evaluation.evaluation_card import update_model_card
from dreamer_hf.evaluation.evaluation_options import EvaluationOptions, Protocol
from dreamer_hf.evaluation.figures import compute_figures
from dreamer_hf.evaluation.measurements import measure_world
from dreamer_hf.evaluation.open_loop import CANDIDATES, DREAM, OTHERS, REAL, REPEAT, TOKENIZER, ZEROED
from dreamer_hf.evaluation.plots import save_plots
from dreamer_hf.evaluation.report import make_report, read_report, write_report
from dreamer_hf.evaluation.tables import evaluation_table
from dreamer_hf.pusht.record import record_pusht
from dreamer_hf.training.model_card import CardFacts, write_model_card
from tiny import EXAMPLES, random_world

ROOT = Path(__file__).parents[2]
PROTOCOL = Protocol(num_context_frames=4, num_dream_frames=8, num_episodes=5, batch_size=2, num_videos=3)


def run_script(*arguments):
    return run_command(EXAMPLES / "evaluate.py", *arguments)


@pytest.fixture(scope="module")
def tiny(tiny_shards):
    """World, data and measurements of tiny episodes, which are not PushT, in uneven batches."""
    world, data = random_world(fps=10), ShardDataset(tiny_shards, None, split="all")
    world.config.dynamics_config.relative_actions = [False, False]
    return world, data, measure_world(world, data, PROTOCOL)


def test_measurements_are_by_episode_and_step_and_right(tiny):
    world, data, measured = tiny
    values = measured.values
    assert set(values) == {"mse", "ssim", "reencoding"} and set(values["mse"]) == set(CANDIDATES)
    assert all(array.shape == (5, 8) for arrays in values.values() for array in arrays.values())
    frames = data.window(3, 0, 12)["pixel_values_videos"].double() / 255
    expected = (frames[4:] - frames[3]).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(values["mse"][REPEAT][3], expected, rtol=1e-4)
    reconstruction = world.tokenizer(frames[None].float()).reconstruction[0].double().clamp(0, 1)
    expected = (frames[4:] - reconstruction[4:]).square().mean(dim=(1, 2, 3)).detach()
    np.testing.assert_allclose(values["mse"][TOKENIZER][3], expected, rtol=1e-4)
    assert [len(video[REAL]) for video in measured.videos] == [12] * 3
    assert not np.allclose(values["mse"][DREAM], values["mse"][OTHERS])
    assert REPEAT not in values["reencoding"] and (values["reencoding"][DREAM] > 0).all()


@pytest.mark.slow
def test_json_table_and_plots_hold_the_same_figures(tiny, tmp_path):
    world, data, measured = tiny
    evaluation = make_report(world, data, PROTOCOL, measured)
    write_report(tmp_path / "evaluation.json", evaluation)
    assert read_report(tmp_path / "evaluation.json") == json.loads(json.dumps(evaluation))
    psnr = evaluation["figures"]["psnr"]
    for name, errors in measured.values["mse"].items():
        np.testing.assert_allclose(psnr[name]["mean"], -10 * np.log10(errors.mean(axis=0)), rtol=1e-3)
        assert all(
            low <= value <= high
            for low, value, high in zip(*(psnr[name][f"mean{end}"] for end in ("_low", "", "_high")))
        )
    above = np.subtract(psnr[DREAM]["mean"], psnr[REPEAT]["mean"])
    np.testing.assert_allclose(evaluation["figures"]["psnr_above"][REPEAT]["mean"], above, atol=2e-3)
    table = evaluation_table(evaluation)
    assert (
        f"| repeat the last frame | {psnr[REPEAT]['mean'][0]:.1f} [" in table
        and "| frame of the dream | 1 | 4 | 8 |" in table
    )
    assert "LPIPS was not measured" in table and "all components are absolute" in table
    assert save_plots(tmp_path, evaluation) == ["quality.png"]
    assert cv2.imread(str(tmp_path / "quality.png")).std() > 10
    (tmp_path / "evaluation.json").write_text('{"format_version": 0}')
    with pytest.raises(ValueError, match="has version 0, this package reads 1"):
        read_report(tmp_path / "evaluation.json")


def test_a_card_shows_the_table_of_the_evaluation_next_to_it(tiny, tmp_path):
    world, data, measured = tiny
    world.save_pretrained(tmp_path)
    run = {"train_data": data, "test_data": data, "metrics": {"eval_psnr_1": 20.0}, "training": "Not at all."}
    facts = CardFacts(repo_id=None, ema_decay=0.0, preview=None, **run)
    write_model_card(tmp_path, facts)
    first = (tmp_path / "README.md").read_text()
    assert "| PSNR, dB, at dreamed frame 1 | 20 |" in first
    evaluation = make_report(world, data, PROTOCOL, measured)
    write_report(tmp_path / "evaluation.json", evaluation)
    update_model_card(tmp_path)
    renewed = (tmp_path / "README.md").read_text()
    assert evaluation_table(evaluation) in renewed and "at dreamed frame 1 | 20 |" not in renewed
    assert renewed.endswith("## Training\n\nNot at all.\n"), "the text around the table stays"
    write_model_card(tmp_path, facts)
    assert (tmp_path / "README.md").read_text() == renewed


@pytest.mark.slow
def test_the_script_measures_and_updates_the_card(tiny_shards, tmp_path):
    world, out = tmp_path / "world", tmp_path / "out"
    random_world(fps=10).save_pretrained(world)
    (world / "README.md").write_text("# mine\n")
    sizes = ["--num_context_frames", 3, "--num_dream_frames", 16]
    arguments = ["--model", world, "--data_dir", tiny_shards, "--output_dir", out, *sizes, "--update_card"]
    done = run_script(*arguments)
    assert done.returncode == 0, done.stderr
    assert "| dream |" in done.stdout and "One episode only" in done.stdout
    assert {"evaluation.json", "evaluation.md", "quality.png", "dream.mp4", "dream.gif"} == {
        p.name for p in out.iterdir()
    }
    card = (world / "README.md").read_text()
    assert card.startswith("# mine\n") and evaluation_table(read_report(world / "evaluation.json")) in card
    again = run_script(*arguments)
    assert again.returncode == 2 and "is not empty" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.slow
def test_the_script_refuses_data_that_does_not_fit(tiny_shards, tmp_path):
    random_world(fps=5).save_pretrained(tmp_path / "world")
    done = run_script("--model", tmp_path / "world", "--data_dir", tiny_shards, "--output_dir", tmp_path / "out")
    assert (
        done.returncode == 2
        and "frame rate 5.0 but the data has 10.0" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_short_episodes_and_other_actions_are_evaluated_with_a_warning(tiny_shards, tmp_path, caplog):
    """The longest held-out episode is far shorter than the default length, and the world knows other actions."""
    random_world(fps=10, action_names=["target_x", "target_y"]).save_pretrained(tmp_path / "world")
    folders = {"model": str(tmp_path / "world"), "data_dir": str(tiny_shards)}
    table = evaluate(EvaluationOptions(**folders, output_dir=str(tmp_path / "out")))
    report = read_report(tmp_path / "out" / "evaluation.json")
    length = int(ShardDataset(tiny_shards, None, split="validation").episode_lengths.max())
    assert report["protocol"]["num_dream_frames"] == length - 8
    assert len(report["figures"]["psnr"][DREAM]["mean"]) == length - 8
    assert f"dreaming {length - 8} frames instead" in caplog.text and "--num_dream_frames 64" in caplog.text
    assert "--reset_action_embedding" in caplog.text
    assert "named step_x, step_y, those of the world target_x, target_y" in table


@pytest.mark.slow
def test_frames_that_the_tokenizer_does_not_know_are_noticed(tiny_shards, tmp_path, caplog):
    world = tmp_path / "world"
    random_world(fps=10).save_pretrained(world)
    options = {"model": str(world), "data_dir": str(tiny_shards), "num_dream_frames": 4}
    evaluate(EvaluationOptions(**options, output_dir=str(tmp_path / "first")))
    report = read_report(tmp_path / "first" / "evaluation.json")
    write_report(world / "evaluation.json", report)
    assert "reconstructs" not in evaluate(EvaluationOptions(**options, output_dir=str(tmp_path / "second")))
    report["figures"]["psnr"][TOKENIZER]["mean"][0] += 5
    write_report(world / "evaluation.json", report)
    table = evaluate(EvaluationOptions(**options, output_dir=str(tmp_path / "third")))
    assert "rendered, resized or compressed differently" in table and "The frames look different" in caplog.text


@pytest.fixture(scope="module")
def pusht_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pusht")
    root = record_pusht("tests/pusht", folder / "play", episodes=6, frames_per_episode=14, image_size=64)
    return convert(LeRobotSource(root, "tests/pusht"), folder / "shards", ConversionOptions(relative_actions=True))


@pytest.mark.slow
def test_states_of_pusht_are_measured(pusht_shards, tmp_path):
    world, data = random_world(image_size=64, fps=10), ShardDataset(pusht_shards, None, split="all")
    protocol = Protocol(num_context_frames=4, num_dream_frames=10, num_episodes=6)
    measured = measure_world(world, data, protocol)
    assert measured.is_relative.tolist() == [True, True]
    assert (measured.values["agent_found"][REPEAT] == 1).all()
    assert np.median(measured.values["agent_error"][REPEAT][:, 0]) < np.median(
        measured.values["agent_error"][REPEAT][:, -1]
    )
    assert not np.isfinite(measured.values["agent_error"][DREAM]).all(), "a world of random weights shows no agent"
    evaluation = make_report(world, data, protocol, measured)
    assert evaluation["figures"]["agent_error"][DREAM]["median"][-1] == "inf"
    table = evaluation_table(evaluation)
    assert "| dream | not found |" in table and "all components are relative" in table
    assert save_plots(tmp_path, evaluation) == ["quality.png", "state.png"]
    assert ZEROED in evaluation["figures"]["block_error"] and torch.is_tensor(measured.videos[0][REAL])


def test_blocks_that_move_and_blocks_at_rest_have_separate_figures():
    moved = np.array([[0, 1]] * 6 + [[0, 0]] * 2, float)
    errors = np.array([[1, 5]] * 6 + [[1, 100]] * 2, float)
    values = {"mse": {DREAM: errors, REPEAT: errors}, "block_error": {DREAM: errors}, "block_moved": {REAL: moved}}
    figures = compute_figures(values, Bootstrap(8))
    assert figures["block_moved"][REAL]["mean"] == [0, 0.75]
    assert figures["block_error_where_moved"][DREAM]["median"] == [None, 5]
    assert figures["block_error_where_at_rest"][DREAM]["mean"] == [1, None], "two episodes at rest are too few"
    assert figures["psnr_above"][REPEAT]["mean_low"] == [0, 0]
