"""examples/enlarge_world.py makes a world of larger frames from a trained one."""

import subprocess
import sys

import torch

from dreamer_hf.loading import load_world
from dreamer_hf.start_frames import load_start_frames
from tiny import EXAMPLES, random_world, save_world, script_environment, write_moving_square


def run(*arguments):
    command = [sys.executable, EXAMPLES / "enlarge_world.py", *map(str, arguments)]
    return subprocess.run(command, env=script_environment(), capture_output=True, text=True)


def test_a_world_is_enlarged_and_its_refiner_trained(tmp_path):
    old = random_world(image_size=16, num_latent_tokens=2)
    model = save_world(tmp_path / "old", old)
    shards = write_moving_square(tmp_path / "shards", size=24)
    arguments = ("--model", model, "--data_dir", shards, "--output_dir", tmp_path / "new")
    done = run(*arguments, "--minutes", "0.02", "--batch_size", "4", "--frames", "24", "--refiner_channels", "3")
    assert done.returncode == 0, done.stderr
    assert "Frames of 24 pixels are reconstructed at" in done.stdout
    new = load_world(tmp_path / "new", "cpu")
    assert (new.config.tokenizer_config.image_size, new.config.tokenizer_config.refiner_channels) == (24, 3)
    assert new.tokenizer.decoder.refiner.layers[-1].weight.any(), "it starts at zero"
    for name, weight in new.dynamics.state_dict().items():
        torch.testing.assert_close(weight, old.dynamics.state_dict()[name])
    starts = load_start_frames(tmp_path / "new")
    assert new.start_rollout(starts[0]).step([[1.0, 0.0]]).pixel_values.shape == (1, 3, 24, 24)
    again = run(*arguments)
    assert again.returncode == 2 and "is not empty" in again.stderr
    for flags, message in ((("--minutes", "0"), "a number above 0 for --minutes"),):
        wrong = run(*arguments[:4], "--output_dir", tmp_path / "none", *flags)
        assert wrong.returncode == 2 and message in wrong.stderr and "Traceback" not in wrong.stderr


def test_frames_that_are_not_larger_are_refused(tmp_path):
    model = save_world(tmp_path / "old", random_world(image_size=16))
    shards = write_moving_square(tmp_path / "shards", size=16)
    done = run("--model", model, "--data_dir", shards, "--output_dir", tmp_path / "new")
    assert done.returncode == 2 and "expected an image_size above 16" in done.stderr
