import pytest
import torch

from dreamer_hf.configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig
from dreamer_hf.modeling_dreamer_dynamics import DreamerDynamicsModel
from dreamer_hf.modeling_dreamer_tokenizer import DreamerTokenizerModel
from dreamer_hf.training.arguments import PRESETS, DynamicsArguments, TokenizerArguments, parse_arguments

REQUIRED = ["--data_dir", "data", "--output_dir", "out"]


def parse_tokenizer(*argv: str) -> TokenizerArguments:
    return parse_arguments(TokenizerArguments, "tokenizer", PRESETS, "test", [*REQUIRED, *argv])


def parse_dynamics(*argv: str) -> DynamicsArguments:
    return parse_arguments(DynamicsArguments, "dynamics", PRESETS, "test", [*REQUIRED, "--tokenizer", "t", *argv])


def test_flags_override_the_config_file_which_overrides_the_preset(tmp_path):
    preset = parse_tokenizer("--preset", "pusht")
    assert (preset.hidden_size, preset.learning_rate, preset.gradient_checkpointing) == (1024, 1e-4, True)
    config = tmp_path / "mine.yaml"
    config.write_text("preset: pusht\nlearning_rate: 5e-4\nhidden_size: 512\ngradient_checkpointing: false\n")
    mine = parse_tokenizer("--config", str(config), "--hidden_size", "256")
    assert (mine.hidden_size, mine.learning_rate, mine.gradient_checkpointing) == (256, 5e-4, False)
    assert mine.num_encoder_layers == 16


def test_lists_and_missing_values_in_a_config_file(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("action_num_classes: [0, 0, 2]\nmax_train_minutes: null\n")
    arguments = parse_dynamics("--config", str(config))
    assert arguments.action_num_classes == [0, 0, 2]
    assert arguments.max_train_minutes is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rat", "1"], "unknown key 'learning_rat': did you mean learning_rate"),
        (["--zzz"], "the keys are data_dir, "),
        (["--hidden_size", "wide"], "argument --hidden_size.*invalid int value: 'wide'"),
        (["--optimizer", "sgd"], "optimizer.*choose from"),
        (
            ["--preset", "pusht-huge"],
            r"preset 'pusht-huge' is unknown: choose one of .*pusht, pusht-small, pusht-tiny",
        ),
        (["--max_train_steps", "0"], "max_train_steps=0 is impossible"),
        (["--ema_decay", "1"], "ema_decay=1.0 is impossible"),
        (["--freeze_encoder"], "--freeze_encoder keeps a saved encoder: give its model as --pretrained"),
        (["--max_latent_noise", "-1"], "max_latent_noise=-1.0 is impossible"),
        (["--push_to_hub"], "--push_to_hub needs --hub_model_id"),
    ],
)
def test_bad_flags_are_told_in_one_sentence(argv, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_tokenizer(*argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--own_past_fraction", "0.5"], "own_past_fraction is about frames beside a past: give --past_copies 1, too"),
        (["--pure_noise_fraction", "0.5"], "pure_noise_fraction is about frames beside a past"),
        (["--past_copies", "-1"], "past_copies=-1 is impossible"),
        (["--past_copies", "1", "--own_past_fraction", "2"], "own_past_fraction=2.0 is no share"),
    ],
)
def test_objectives_that_contradict_themselves_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_dynamics(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates: 1\n", "unknown key 'learning_rates' in .*mine.yaml: did you mean learning_rate"),
        ("learning_rate: [\n", "is not YAML"),
        ("- 1\n", "holds no keys"),
        ("seed: often\n", "invalid int value: 'often'"),
    ],
)
def test_bad_config_files_are_told_in_one_sentence(tmp_path, text, message):
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        parse_tokenizer("--config", str(config))
    assert "\n" not in str(error.value)


def test_missing_files_and_required_keys():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        parse_tokenizer("--config", "nowhere.yaml")
    with pytest.raises(ValueError, match="--data_dir is missing"):
        parse_arguments(TokenizerArguments, "tokenizer", PRESETS, "test", ["--output_dir", "out"])
    with pytest.raises(ValueError, match="--tokenizer is missing"):
        parse_arguments(DynamicsArguments, "dynamics", PRESETS, "test", REQUIRED)


def count_parameters(model_class, config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in model_class(config).parameters())


@pytest.mark.parametrize(
    ("preset", "image_size", "action_dim", "tokenizer_millions", "dynamics_millions"),
    [
        ("pusht-tiny", 64, 2, 1.38, 1.6),
        ("pusht-small", 64, 2, 1.38, 6.4),
        ("pusht", 256, 2, 400, 110),
        ("soar-small", 256, 7, 400, 110),
        ("soar-large", 256, 7, 400, 1600),
        ("paper-minecraft", [384, 640], 25, 404, 1630),
        ("paper-soar", 256, 7, 404, 1630),
    ],
)
def test_presets_have_the_published_sizes(preset, image_size, action_dim, tokenizer_millions, dynamics_millions):
    tokenizer = DreamerTokenizerConfig(image_size=image_size, **parse_tokenizer("--preset", preset).model_values())
    dynamics = DreamerDynamicsConfig(
        num_latent_tokens=tokenizer.num_latent_tokens,
        latent_dim=tokenizer.latent_dim,
        action_dim=action_dim,
        **parse_dynamics("--preset", preset).model_values(),
    )
    assert count_parameters(DreamerTokenizerModel, tokenizer) / 1e6 == pytest.approx(tokenizer_millions, rel=0.08)
    assert count_parameters(DreamerDynamicsModel, dynamics) / 1e6 == pytest.approx(dynamics_millions, rel=0.08)


def test_presets_of_the_paper_have_its_tokens_windows_and_lengths():
    sizes = {
        "paper-minecraft": ([384, 640], 960, (512, 16), (256, 32)),
        "paper-soar": (256, 256, (512, 16), (512, 16)),
    }
    windows = {"paper-minecraft": (192, 64, 256), "paper-soar": (96, 32, 128)}
    for preset, (image_size, patches, bottleneck, latents) in sizes.items():
        tokenizer, dynamics = parse_tokenizer("--preset", preset), parse_dynamics("--preset", preset)
        config = DreamerTokenizerConfig(image_size=image_size, **tokenizer.model_values())
        assert (config.num_patches, config.bottleneck_shape) == (patches, bottleneck)
        assert (config.num_latent_tokens, config.latent_dim) == latents
        for keys in (tokenizer, dynamics):
            assert (keys.context_length, keys.sequence_length, keys.long_sequence_length) == windows[preset]
