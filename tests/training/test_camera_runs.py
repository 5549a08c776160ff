"""Training and evaluating worlds of two cameras."""

import pytest
import torch
from accelerate import Accelerator

from dreamer_hf import DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation.evaluate import evaluate, save_dreams
from dreamer_hf.evaluation.evaluation_options import DreamVideoOptions, EvaluationOptions, Protocol
from dreamer_hf.evaluation.measurements import measure_world
from dreamer_hf.evaluation.open_loop import DREAM, TOKENIZER
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.training.latents import LatentDataset, encode_shards
from tiny import build_once, read_metrics, train, write_moving_square

NAMES = ["front", "wrist"]


@pytest.fixture(scope="module")
def camera_data(tmp_path_factory):
    def build(folder):
        write_moving_square(folder, with_state=True, camera_names=NAMES)

    return build_once(tmp_path_factory, "square_of_two_cameras", build)


@pytest.fixture(scope="module")
def both_runs(tmp_path_factory, camera_data, configs):
    """The folders of a tokenizer and of a world of two cameras."""

    def build(folder):
        folder.mkdir()
        inputs = ["--data_dir", camera_data, "--lpips_net", "none"]
        train("tokenizer", "--config", configs["tokenizer"], *inputs, "--output_dir", folder / "tokenizer")
        inputs += ["--tokenizer", folder / "tokenizer"]
        train("dynamics", "--config", configs["dynamics"], *inputs, "--output_dir", folder / "world")

    folder = build_once(tmp_path_factory, "camera_runs", build)
    return folder / "tokenizer", folder / "world"


def test_one_tokenizer_learns_all_cameras_and_the_world_knows_their_names(both_runs):
    tokenizer, world = both_runs
    config = DreamerWorldModel.from_pretrained(world).config
    assert config.dynamics_config.camera_names == NAMES and config.dynamics_config.num_latent_tokens == 8
    assert DreamerTokenizerModel.from_pretrained(tokenizer).config.num_latent_tokens == 4
    assert "eval_psnr" in read_metrics(tokenizer)[-1]
    starts = load_start_frames(world)
    assert starts.pixel_values_videos.shape[2:] == (2, 3, 16, 16) and starts.states is not None
    output = DreamerWorldModel.from_pretrained(world).start_rollout(starts).step(None)
    assert output.pixel_values.shape[1:] == (2, 3, 16, 16) and output.state.shape[1:] == (2,)


@pytest.mark.slow
def test_latents_of_all_cameras_are_cached_and_stored(both_runs, camera_data, configs, tmp_path):
    tokenizer = DreamerTokenizerModel.from_pretrained(both_runs[0]).eval()
    data = ShardDataset(camera_data, 5, split="all")
    cached = LatentDataset(data, tokenizer, progress=False)
    folder = tmp_path / "latents"
    encode_shards(Accelerator(), tokenizer, str(camera_data), folder, False)
    stored = ShardDataset(folder, 5, split="all")
    assert stored.camera_names == NAMES and stored.metadata.latent_shape == (8, 4)
    episode = data.episode(1)["pixel_values_videos"]
    with torch.no_grad():
        expected = torch.cat([tokenizer.encode(episode[None, :, camera]).latents[0] for camera in range(2)], dim=1)
    for latents in (cached.episode(1)["latents"], stored.episode(1)["latents"]):
        torch.testing.assert_close(latents.float(), expected, atol=2e-3, rtol=1e-2)
    inputs = ["--data_dir", folder, "--tokenizer", both_runs[0], "--lpips_net", "none", "--max_train_steps", 2]
    train("dynamics", "--config", configs["dynamics"], *inputs, "--output_dir", tmp_path / "world")
    assert load_start_frames(tmp_path / "world").pixel_values_videos.shape[2:] == (2, 3, 16, 16)
    assert DreamerWorldModel.from_pretrained(tmp_path / "world").config.dynamics_config.camera_names == NAMES


@pytest.mark.slow
def test_evaluation_has_a_row_for_each_camera(both_runs, camera_data, tmp_path):
    world, data = DreamerWorldModel.from_pretrained(both_runs[1]).eval(), ShardDataset(camera_data, None, split="all")
    values = measure_world(world, data, Protocol(num_context_frames=4, num_dream_frames=5, num_episodes=6)).values
    for name in (DREAM, TOKENIZER):
        both = (values["mse/front"][name] + values["mse/wrist"][name]) / 2
        torch.testing.assert_close(torch.tensor(values["mse"][name]), torch.tensor(both))
    frames = data.window(2, 0, 9)["pixel_values_videos"].double() / 255
    with torch.no_grad():
        shown = world.tokenizer(frames[None, :, 1].float()).reconstruction[0].double().clamp(0, 1)
    expected = (frames[4:, 1] - shown[4:]).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(torch.tensor(values["mse/wrist"][TOKENIZER][2]), expected, rtol=1e-3, atol=1e-6)
    common = {"model": str(both_runs[1]), "data_dir": str(camera_data), "num_context_frames": 4, "split": "all"}
    table = evaluate(EvaluationOptions(**common, output_dir=str(tmp_path / "out"), num_dream_frames=5))
    assert "PSNR of camera front, dB" in table and "PSNR of camera wrist, dB" in table
    save_dreams(DreamVideoOptions(**common, output_dir=str(tmp_path / "video"), num_dream_frames=5, num_episodes=2))
    assert (tmp_path / "video" / "dream.mp4").is_file()


def test_data_of_other_cameras_are_refused(both_runs, camera_data, data_dir, configs, tmp_path):
    options = {"model": str(both_runs[1]), "output_dir": str(tmp_path / "out"), "num_dream_frames": 4}
    with pytest.raises(ValueError, match=r"the world has cameras \['front', 'wrist'\] but the data has None"):
        evaluate(EvaluationOptions(**options, data_dir=str(data_dir)))
    other = write_moving_square(tmp_path / "other", camera_names=["front", "side"])
    inputs = [
        "--data_dir",
        other,
        "--pretrained",
        both_runs[1],
        "--lpips_net",
        "none",
        "--output_dir",
        tmp_path / "run",
    ]
    with pytest.raises(
        ValueError, match=r"camera_names=.*wrist.* but this run asks for .*side.*give data that fit it"
    ):
        train("dynamics", "--config", configs["dynamics"], *inputs)
