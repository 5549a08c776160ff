"""The published `.pt` format: golden values, other sizes and spellings, and refusals."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import run_command
from dreamer_hf import DreamerDynamicsModel, DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.cli import main
from dreamer_hf.convert_published import PublishedOptions, convert_published
from dreamer_hf.published_checkpoints import convert_dynamics, convert_tokenizer, read_state_dict
from tiny import randn

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/fixtures/golden"
TOLERANCE = {"atol": 1e-4, "rtol": 0}


def convert(*arguments):
    return run_command(ROOT / "conversion/dreamer_v4_to_hf.py", *arguments)


@pytest.fixture(scope="module", params=["plain", "grouped_query"])
def golden(request, tmp_path_factory):
    """Return the world that the script converts from one golden pair of files, and the expected tensors."""
    source, output = GOLDEN / request.param, tmp_path_factory.mktemp("golden") / "world"
    facts = json.loads((source / "facts.json").read_text())
    done = convert(
        *("--tokenizer", source / "tokenizer.pt", "--dynamics", source / "dynamics.pt", "--output_dir", output),
        *("--tokenizer_num_attention_heads", facts["tokenizer"]["num_attention_heads"]),
        *("--dynamics_num_attention_heads", facts["dynamics"]["num_attention_heads"]),
        *("--context_length", facts["dynamics"]["context_length"], "--fps", 10),
    )
    assert done.returncode == 0, done.stderr
    world = DreamerWorldModel.from_pretrained(output).eval()
    assert world.config.dynamics_config.fps == 10 and world.config.dynamics_config.action_offset == 0
    return world, load_file(source / "expected.safetensors")


@pytest.mark.slow
@torch.no_grad()
def test_golden_passes(golden):
    world, expected = golden
    latents = world.tokenizer.encode(expected["video"]).latents
    frames = world.tokenizer.decode(expected["latents"]).pixel_values_videos
    noisy = expected["noisy_latents"], expected["signal_index"], expected["step_index"]
    torch.testing.assert_close(latents, expected["latents"], **TOLERANCE)
    torch.testing.assert_close(frames, expected["reconstruction"], **TOLERANCE)
    torch.testing.assert_close(world.dynamics(*noisy, expected["actions"]).latents, expected["denoised"], **TOLERANCE)
    torch.testing.assert_close(world.dynamics(*noisy).latents, expected["denoised_without_actions"], **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("merge_commit", [True, False])
def test_golden_rollout(golden, merge_commit):
    world, expected = golden
    actions, start, commit = (expected[key] for key in ("actions", "rollout_start_noise", "rollout_commit_noise"))
    rollout = world.start_rollout(
        expected["video"][:, :4],
        actions[:, :4],
        context_noise=expected["rollout_context_noise"],
    )
    rollout.latent_rollout.merge_commit = merge_commit
    steps = [rollout.step(actions[:, 4 + i], start_noise=start[:, i], commit_noise=commit[:, i]) for i in range(6)]
    latents = torch.stack([step.latents for step in steps], dim=1)
    frames = torch.stack([step.pixel_values for step in steps], dim=1)
    torch.testing.assert_close(latents, expected["rollout_latents"], **TOLERANCE)
    torch.testing.assert_close(frames, expected["rollout_frames"], **TOLERANCE)


def published_layers(prefix, groups, width, key_width, inner, heads=None):
    tensors = {}
    for name in (f"{prefix}layers.{g}.layers.{j}." for g in range(groups) for j in range(4)):
        for key, shape in {
            "q": (width, width),
            "k": (key_width, width),
            "v": (key_width, width),
            "o": (width, width),
        }.items():
            tensors[f"{name}attn.attn.W_{key}.weight"] = randn(*shape) * 0.1
        for norm in ("norm1", "norm2"):
            tensors[f"{name}{norm}.weight"] = torch.ones(width)
        for key, shape in {"up": (inner, width), "gate": (inner, width), "down": (width, inner)}.items():
            tensors[f"{name}ffn.{key}.weight"] = randn(*shape) * 0.1
        if heads:
            tensors[f"{name}attn.attn.g"] = randn(1, heads, 1, 1)
    return tensors


def published_dynamics(width=64, groups=2, heads=None, levels=32, actions=3, prefix="model."):
    """Return a random state dict in the published format."""
    tensors = {
        f"{prefix}shortcut_embedder.embeddings": randn(levels.bit_length(), width),
        f"{prefix}diffusion_embedder.embeddings": randn(levels, width),
        f"{prefix}diff_control_proj.weight": randn(width, 2 * width),
        f"{prefix}register_tokens": randn(1, 1, 5, width),
        f"{prefix}action_tokens": randn(1, 1, 2, width),
        f"{prefix}action_proj.weight": randn(width, actions),
        f"{prefix}action_proj.bias": randn(width),
        f"{prefix}latent_projector.weight": randn(width, 12),
        f"{prefix}output_projector.weight": randn(12, width),
    }
    return tensors | published_layers(prefix, groups, width, width, 8 * width // 3, heads)


def published_tokenizer(width=64, patch=4, patches=9, groups=(1, 2)):
    tensors = {
        "patchifier.cnn.weight": randn(width, 3, patch, patch),
        "patchifier.cnn.bias": randn(width),
        "masker.mask_token": randn(1, 1, 1, width),
        "encoder.learned_latent_tokens": randn(1, 1, 7, width),
        "encoder.output_proj.weight": randn(12, width),
        "encoder.output_proj.bias": randn(12),
        "encoder.spatial_mask": torch.ones(16, 16, dtype=torch.bool),
        "decoder.input_proj.weight": randn(width, 12),
        "decoder.input_proj.bias": randn(width),
        "decoder.learned_modality_tokens": randn(1, 1, patches, width),
        "image_head.conv.weight": randn(3 * patch * patch, width, 1, 1),
        "image_head.conv.bias": randn(3 * patch * patch),
    }
    encoder, decoder = (
        published_layers(name, count, width, width, 8 * width // 3)
        for name, count in zip(("encoder.", "decoder."), groups)
    )
    return tensors | encoder | decoder


def test_other_sizes_qk_norm_and_no_prefix(tmp_path):
    torch.save({"model": published_dynamics(heads=8, prefix=""), "epoch": 3}, tmp_path / "dynamics.pt")
    torch.save(published_tokenizer(), tmp_path / "tokenizer.pt")
    dynamics = convert_dynamics(tmp_path / "dynamics.pt", num_latent_tokens=7)
    tokenizer = convert_tokenizer(tmp_path / "tokenizer.pt")
    config = dynamics.config
    assert (config.num_attention_heads, config.qk_norm, config.num_hidden_layers) == (8, True, 8)
    assert (config.num_register_tokens, config.num_action_tokens, config.action_dim) == (5, 2, 3)
    assert (config.num_signal_levels, config.context_length, config.action_offset) == (32, 32, 0)
    config = tokenizer.config
    assert (config.image_size, config.patch_size, config.num_latent_tokens, config.latent_dim) == (12, 4, 7, 12)
    assert (config.num_encoder_layers, config.num_decoder_layers, config.num_attention_heads) == (4, 8, 1)
    source = read_state_dict(tmp_path / "dynamics.pt")["layers.1.layers.3.attn.attn.g"].flatten()
    assert torch.equal(dynamics.transformer.layers[7].self_attn.query_scale, source)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.module.", "_orig_mod.module."])
def test_prefixes_and_legacy_spelling(tmp_path, prefix):
    tensors = published_dynamics()
    torch.save({"model": tensors}, tmp_path / "now.pt")
    legacy = {prefix + key.replace("diffusion_embedder", "diffuion_embedder"): value for key, value in tensors.items()}
    torch.save({"model": legacy, "optim": {"lr": 1.0}}, tmp_path / "legacy.pt")
    now, then = (convert_dynamics(tmp_path / name, 7).state_dict() for name in ("now.pt", "legacy.pt"))
    assert now.keys() == then.keys() and all(torch.equal(now[key], then[key]) for key in now)


@pytest.mark.slow
def test_one_file_gives_one_model(tmp_path):
    torch.save({"model": published_tokenizer()}, tmp_path / "t.pt")
    torch.save({"model": published_dynamics()}, tmp_path / "d.pt")
    convert_published(PublishedOptions(tokenizer=f"{tmp_path}/t.pt", output_dir=f"{tmp_path}/t"))
    convert_published(PublishedOptions(dynamics=f"{tmp_path}/d.pt", output_dir=f"{tmp_path}/d", num_latent_tokens=7))
    assert DreamerTokenizerModel.from_pretrained(tmp_path / "t").config.latent_dim == 12
    assert DreamerDynamicsModel.from_pretrained(tmp_path / "d").config.num_latent_tokens == 7


class Exploit:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


def faulty_files(folder):
    """Yield names, files, and words that their refusal must contain."""
    tensors = published_dynamics()
    norm, width = "model.layers.1.layers.2.norm1.weight", len(tensors["model.register_tokens"][0, 0, 0])
    missing = {
        k: v for k, v in tensors.items() if not k.endswith(("output_projector.weight", "1.layers.2.norm1.weight"))
    }
    cases = {
        "missing": (missing, ["missing", "output_projector.weight", "layers.1.layers.2.norm1.weight"]),
        "left over": ({**tensors, "model.extra": torch.ones(1)}, ["left over", "extra"]),
        "misshapen": ({**tensors, "model.action_tokens": torch.ones(1, 1, 2, 63)}, ["wrong shape", "action_tokens"]),
        "not a number": (
            {**tensors, norm: torch.full((width,), torch.nan)},
            ["NaN or infinite values: layers.1.layers.2"],
        ),
        "infinite": (
            {**tensors, norm: torch.full((width,), -torch.inf)},
            ["NaN or infinite values: layers.1.layers.2"],
        ),
        "other axes": ({**tensors, "model.register_tokens": torch.ones(5)}, ["register_tokens", "to have 4 axes"]),
        "integer keys": ({"model": {0: torch.ones(1)}}, ["holds no named tensors"]),
        "a billion layers": (
            {**tensors, "model.layers.999999999.x": torch.ones(1)},
            ["num_hidden_layers to be an int from 1 to 1024"],
        ),
        "complex": ({**tensors, norm: torch.ones(width, dtype=torch.complex64)}, ["wrong shape", "complex64"]),
        "a tokenizer": (published_tokenizer(), ["layers.0.layers.0.attn.attn.W_q.weight"]),
        "no tensors": ({"model": {"a": 1}}, ["holds no named tensors"]),
    }
    for name, (content, words) in cases.items():
        torch.save(content, folder / f"{name}.pt")
        yield name, folder / f"{name}.pt", words
    (folder / "text.pt").write_text("not a checkpoint")
    (folder / "pickle.pt").write_bytes(pickle.dumps(Exploit()))
    torch.save({"model": tensors}, folder / "cut.pt")
    (folder / "cut.pt").write_bytes((folder / "cut.pt").read_bytes()[:5000])
    for name in ("text", "pickle", "cut"):
        yield name, folder / f"{name}.pt", ["not a checkpoint"]
    yield "absent", folder / "absent.pt", ["there is no file"]


def test_refusals(tmp_path):
    for name, path, words in faulty_files(tmp_path):
        with pytest.raises((ValueError, FileNotFoundError)) as refusal:
            convert_dynamics(path, 7)
        assert "\n" not in str(refusal.value)
        for word in words:
            assert word in str(refusal.value), (name, str(refusal.value))


@pytest.mark.slow
def test_the_command_refuses_in_one_sentence(tmp_path, capsys):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"model": published_dynamics()}, tmp_path / "d.pt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("precious")
    cases = {
        "nothing to convert": ("--output_dir", tmp_path / "a"),
        "not a checkpoint": ("--dynamics", tmp_path / "text.pt", "--output_dir", tmp_path / "b"),
        "is not empty": ("--dynamics", tmp_path / "d.pt", "--output_dir", tmp_path / "full"),
        "expected a positive number of heads, got 0": (
            *("--dynamics", tmp_path / "d.pt", "--output_dir", tmp_path / "e", "--dynamics_num_attention_heads", 0),
        ),
        "context_length to be an int from 1": (
            *("--dynamics", tmp_path / "d.pt", "--output_dir", tmp_path / "f", "--context_length", 0),
        ),
        "which 5 heads cannot share": (
            *("--dynamics", tmp_path / "d.pt", "--output_dir", tmp_path / "c", "--dynamics_num_attention_heads", 5),
        ),
    }
    for words, arguments in cases.items():
        with pytest.raises(SystemExit) as stop:
            main("convert", "checkpoint", arguments=list(map(str, arguments)))
        printed = capsys.readouterr().err
        assert stop.value.code == 2 and words in printed, printed
        assert "Traceback" not in printed and printed.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.pt", "full", "text.pt"]
