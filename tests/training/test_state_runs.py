"""Training and evaluating worlds with a state."""

import numpy as np
import pytest
import torch

from dreamer_hf import DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.shards import ShardMetadata
from dreamer_hf.evaluation.evaluate import evaluate
from dreamer_hf.evaluation.evaluation_options import EvaluationOptions, Protocol
from dreamer_hf.evaluation.measurements import measure_world
from dreamer_hf.evaluation.open_loop import DREAM, REPEAT, TRUE_LATENTS
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.training.latents import LatentDataset
from tiny import build_once, read_metrics, train, write_moving_square

COPIES = ["--context_copies", 1, "--num_context_frames", 1, "--pure_noise_fraction", 0.5]


@pytest.fixture(scope="module")
def state_data(tmp_path_factory):
    return build_once(
        tmp_path_factory, "square_with_state", lambda folder: write_moving_square(folder, with_state=True)
    )


@pytest.fixture(scope="module")
def run(state_data, configs, tokenizer_run):
    def start(folder, *options, data=state_data):
        inputs = ["--data_dir", data, "--tokenizer", tokenizer_run, "--lpips_net", "none", "--output_dir", folder]
        train("dynamics", "--config", configs["dynamics"], *inputs, *options)
        return folder

    return start


@pytest.fixture(scope="module")
def state_run(tmp_path_factory, run):
    options = [*COPIES, "--own_context_fraction", 0.5, "--state_dropout", 0.5, "--cache_latents", "true"]
    return build_once(tmp_path_factory, "state_run", lambda folder: run(folder, *options))


def test_a_run_learns_the_state_of_the_data_and_saves_it_with_the_world(state_run, state_data):
    data, config = ShardDataset(state_data, None), DreamerWorldModel.from_pretrained(state_run).config.dynamics_config
    assert config.state_dim == 2 and config.state_names == ["y", "x"] and config.state_units == ["px", "px"]
    assert config.state_stats == {name: data.state_stats[name] for name in ("mean", "std", "min", "max")}
    starts = load_start_frames(state_run)
    assert starts.states.shape[2] == 2
    lines = read_metrics(state_run)
    steps = [line for line in lines if "state" in line]
    assert len(steps) == 8
    for line in steps:
        assert line["loss"] == pytest.approx(line["shortcut"] + 0.5 * line["state"])
    measured = [line for line in lines if "eval_flow_loss" in line]
    assert {"eval_state_error_1", "eval_repeat_state_error_1"} <= measured[-1].keys()
    world = DreamerWorldModel.from_pretrained(state_run).eval()
    assert world.start_rollout(starts).step(torch.zeros(len(starts), 2)).state.shape == (len(starts), 2)


@pytest.mark.slow
def test_the_state_follows_from_the_frames_and_actions_once_it_is_learned(tmp_path, run):
    """200 steps are enough to be clearly better than a state that does not change."""
    data = write_moving_square(tmp_path / "data", episodes=30, with_state=True)
    options = ["--max_train_steps", 200, "--eval_steps", 200, "--checkpointing_steps", 200, "--learning_rate", 1e-2]
    options += ["--cache_latents", "true", "--eval_windows", 16, "--bootstrap_fraction", 0, "--hidden_size", 32]
    options += ["--per_device_batch_size", 8]
    last = read_metrics(run(tmp_path / "run", *COPIES, *options, data=data))[-1]
    assert last["eval_state_error_1"] < 0.8 * last["eval_repeat_state_error_1"], last
    assert last["eval_state_error_3"] < 0.8 * last["eval_repeat_state_error_3"], last


@pytest.mark.slow
def test_the_state_can_be_left_out_and_data_without_one_give_none(tmp_path, run, data_dir):
    without = run(tmp_path / "without", "--learn_state", "false")
    assert DreamerWorldModel.from_pretrained(without).config.dynamics_config.state_dim == 0
    assert all("state" not in line for line in read_metrics(without))
    none = run(tmp_path / "none", data=data_dir)
    same = ("shortcut", "eval_flow_loss", "eval_psnr_1")
    for ours, theirs in zip(read_metrics(without), read_metrics(none), strict=True):
        assert {name: ours.get(name) for name in same} == {name: theirs.get(name) for name in same}


@pytest.mark.slow
def test_a_world_with_a_state_is_fine_tuned_on_data_with_and_without_one(tmp_path, run, state_run, data_dir):
    for name, data in (("without", {"data": data_dir}), ("with", {})):
        folder = run(tmp_path / name, "--pretrained", state_run, "--max_train_steps", 2, **data)
        assert DreamerWorldModel.from_pretrained(folder).config.dynamics_config.state_dim == 2
    other = write_moving_square(tmp_path / "other", with_state=True)
    metadata = ShardMetadata.read(other)
    metadata.state_shape, metadata.state_names, metadata.state_units, metadata.state_stats = (3,), None, None, None
    metadata.write(other)
    with pytest.raises(ValueError, match=r"has a state of width 2 \(y, x\), but the data have one of width 3"):
        run(tmp_path / "refused", "--pretrained", state_run, data=other)


def test_latents_of_episodes_keep_their_states(state_data, tokenizer_run, tmp_path):
    from accelerate import Accelerator

    from dreamer_hf.training.latents import encode_shards

    data = ShardDataset(state_data, 5, split="all")
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run).eval()
    cached = LatentDataset(data, tokenizer, progress=False)
    encode_shards(Accelerator(), tokenizer, str(state_data), tmp_path / "out", False)
    stored = ShardDataset(tmp_path / "out", 5, split="all")
    assert stored.state_stats == data.state_stats
    for index in (0, len(data) // 2, len(data) - 1):
        for name in ("states", "state_mask"):
            assert torch.equal(cached[index][name], data[index][name])
            assert torch.equal(stored[index][name], data[index][name])


@pytest.mark.slow
def test_evaluation_measures_the_state_in_units_and_percent_of_the_range(state_run, state_data, tmp_path):
    world, data = DreamerWorldModel.from_pretrained(state_run).eval(), ShardDataset(state_data, None, split="all")
    values = measure_world(world, data, Protocol(num_context_frames=4, num_dream_frames=5, num_episodes=6)).values
    stats, repeated = data.state_stats, []
    for position in range(6):
        states = data.episode(position)["states"].numpy()
        errors = np.abs(states[4:9] - states[3])
        repeated.append(errors if position < 5 else np.full_like(errors, np.nan))  # the last episode has none
    repeated = np.array(repeated)
    for component, name in enumerate("yx"):
        np.testing.assert_allclose(values[f"state_error/{name}"][REPEAT], repeated[..., component])
    percent = 100 * repeated / np.subtract(stats["max"], stats["min"])
    np.testing.assert_allclose(values["state_error"][REPEAT], percent.mean(axis=2), rtol=1e-5)
    assert (
        np.isfinite(values["state_error"][DREAM][:5]).all()
        and np.isfinite(values["state_error"][TRUE_LATENTS][:5]).all()
    )
    options = EvaluationOptions(
        model=str(state_run),
        data_dir=str(state_data),
        output_dir=str(tmp_path / "out"),
        num_context_frames=4,
        num_dream_frames=5,
        split="all",
    )
    table = evaluate(options)
    assert "State: mean error, % of the range" in table and "State, y: mean error, units of the data" in table
    assert "given the true latents" in table and (tmp_path / "out" / "robot_state.png").is_file()
