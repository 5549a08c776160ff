import pytest
import torch
from accelerate.state import AcceleratorState

from dreamer_hf import DreamerTokenizerModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.training.argument_parsing import parse_arguments
from dreamer_hf.training.arguments import DynamicsArguments
from dreamer_hf.training.dynamics_objective import DynamicsObjective
from dreamer_hf.training.latents import LatentDataset
from dreamer_hf.training.runs import make_accelerator
from dreamer_hf.training.trainer import Trainer
from tiny import write_moving_square


def test_cached_latents_are_those_of_the_whole_episode(tmp_path, tokenizer_run):
    data = ShardDataset(write_moving_square(tmp_path / "data", episodes=2, length=70), 5, stride=3, split="all")
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run).eval()
    cached = LatentDataset(data, tokenizer, progress=False)
    assert len(cached) == len(data)
    with torch.no_grad():
        episodes = [tokenizer.encode(data.episode(i)["pixel_values_videos"][None]).latents[0] for i in (0, 1)]
    per_episode = len(data) // 2
    for index in (0, 7, per_episode - 1, per_episode, len(data) - 1):
        episode, window = divmod(index, per_episode)
        item = cached[index]
        assert item["latents"].dtype == torch.float16
        expected = episodes[episode][3 * window : 3 * window + 5]
        torch.testing.assert_close(item["latents"].float(), expected, atol=1e-3, rtol=1e-3)
        assert cached.episode_of(index) == data.episode_of(index) == episode
        for name in ("actions", "action_mask"):
            assert torch.equal(item[name], data[index][name])
    assert len(cached.with_window(1)) == 140


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_frames_are_encoded_in_the_precision_of_the_run(tmp_path, data_dir, configs, tokenizer_run, precision, dtype):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run]
    argv += [
        "--cache_latents",
        "false",
        "--mixed_precision",
        precision,
        "--lpips_net",
        "none",
        "--output_dir",
        tmp_path,
    ]
    arguments = parse_arguments(DynamicsArguments, list(map(str, argv)))
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = make_accelerator(arguments)
    objective, products = DynamicsObjective(arguments, 0, 1, accelerator.device), []
    Trainer(accelerator, arguments, objective)
    last = objective.tokenizer.encoder.transformer.layers[-1].mlp.down_proj
    last.register_forward_hook(lambda module, inputs, output: products.append(output.dtype))
    batch, rows = next(objective.batches(0))
    objective.losses(objective.model, batch, rows)
    assert products == [dtype]
