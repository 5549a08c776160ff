"""examples/enlarge_world.py makes a world of larger frames from a trained one."""

import importlib.util
import sys

import pytest
import torch

from dreamer_hf.loading import load_world
from dreamer_hf.start_frames import load_start_frames
from tiny import EXAMPLES, random_world, save_world, write_moving_square


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("enlarge_world", EXAMPLES / "enlarge_world.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_world_is_enlarged_and_its_refiner_trained(script, tmp_path):
    old = random_world(image_size=16)
    options = {"model": str(save_world(tmp_path / "old", old)), "output_dir": str(tmp_path / "new")}
    options |= {"data_dir": str(write_moving_square(tmp_path / "shards", size=24)), "minutes": 0.02}
    options = script.EnlargeOptions(**options, frames=24, batch_size=4, refiner_channels=3)
    assert "Frames of 24 pixels are reconstructed at" in script.enlarge_world(options)
    new = load_world(tmp_path / "new", "cpu")
    assert (new.config.tokenizer_config.image_size, new.config.tokenizer_config.refiner_channels) == (24, 3)
    assert new.tokenizer.decoder.refiner.layers[-1].weight.any(), "it starts at zero"
    for name, weight in new.dynamics.state_dict().items():
        torch.testing.assert_close(weight, old.dynamics.state_dict()[name])
    starts = load_start_frames(tmp_path / "new")
    assert new.start_rollout(starts[0]).step([[1.0, 0.0]]).pixel_values.shape == (1, 3, 24, 24)
    with pytest.raises(FileExistsError, match="is not empty"):
        script.enlarge_world(options)


def test_what_cannot_be_enlarged_is_refused_in_one_sentence(script, tmp_path):
    model = str(save_world(tmp_path / "old", random_world(image_size=16)))
    for size, width, message in ((16, None, "expected an image_size above 16"), (24, 32, "has no square frames")):
        shards = write_moving_square(tmp_path / message.split()[0], size=size, width=width)
        options = script.EnlargeOptions(model=model, data_dir=str(shards), output_dir=str(tmp_path / "new"))
        with pytest.raises(ValueError, match=message):
            script.enlarge_world(options)
    with pytest.raises(ValueError, match="a number above 0 for --minutes"):
        script.EnlargeOptions(data_dir="x", output_dir="y", minutes=0)
