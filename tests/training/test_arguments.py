import json

import pytest
import torch

from dreamer_hf.configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig
from dreamer_hf.modeling_dreamer_dynamics import DreamerDynamicsModel
from dreamer_hf.modeling_dreamer_tokenizer import DreamerTokenizerModel
from dreamer_hf.training.argument_parsing import ARGUMENTS_FILE, PATHS_FILE, parse_arguments
from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments
from dreamer_hf.training.checkpoints import save_arguments

REQUIRED = ["--data_dir", "data", "--output_dir", "out"]


def parse_tokenizer(*argv: str) -> TokenizerArguments:
    return parse_arguments(TokenizerArguments, [*REQUIRED, *argv])


def parse_dynamics(*argv: str) -> DynamicsArguments:
    return parse_arguments(DynamicsArguments, [*REQUIRED, "--tokenizer", "t", *argv])


def test_flags_override_the_config_file_which_overrides_the_preset(tmp_path):
    preset = parse_tokenizer("--preset", "pusht")
    assert (preset.model.hidden_size, preset.optimizer.learning_rate) == (1024, 1e-4)
    assert preset.run.gradient_checkpointing
    config = tmp_path / "mine.yaml"
    config.write_text("preset: pusht\nlearning_rate: 5e-4\nhidden_size: 512\ngradient_checkpointing: false\n")
    mine = parse_tokenizer("--config", str(config), "--hidden_size", "256")
    assert (mine.model.hidden_size, mine.optimizer.learning_rate) == (256, 5e-4)
    assert not mine.run.gradient_checkpointing
    assert mine.model.num_encoder_layers == 16


def test_lists_and_missing_values_in_a_config_file(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("action_num_classes: [0, 0, 2]\nmax_train_minutes: null\n")
    arguments = parse_dynamics("--config", str(config))
    assert arguments.model.action_num_classes == [0, 0, 2]
    assert arguments.run.max_train_minutes is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rat", "1"], r"unknown option 'learning_rat': did you mean learning_rate\?$"),
        (["--past-copies", "1"], r"unknown option 'past_copies': did you mean context_copies\?$"),
        (["--zzz"], r"unknown option 'zzz': --help lists the options\.$"),
        (["--adam_beta1", "0.9"], "the option 'adam_beta1' no longer exists: see docs/notes/removed-options.md"),
        (["--hidden_size", "wide"], "argument --hidden_size.*invalid int value: 'wide'"),
        (["--optimizer", "sgd"], "optimizer.*choose from"),
        (
            ["--preset", "pusht-huge"],
            r"preset 'pusht-huge' is unknown: choose one of .*pusht, pusht-small, pusht-tiny",
        ),
        (["--max_train_steps", "0"], r"expected a number above 0 for --max_train_steps, got 0\.$"),
        (["--ema_decay", "1"], "expected a number from 0 to below 1 for --ema_decay, got 1.0"),
        (["--learning_rate", "nan"], "expected a number above 0 for --learning_rate, got nan"),
        (["--seed", "-1"], "expected 0 or more for --seed, got -1"),
        (["--train_fraction", "0"], "expected a share above 0 and up to 1 for --train_fraction"),
        (["--freeze_encoder"], "--freeze_encoder keeps the encoder of a saved model: give that model as --pretrained"),
        (["--max_latent_noise", "-1"], "expected 0 or more for --max_latent_noise, got -1.0"),
        (["--push_to_hub"], "--push_to_hub needs --hub_model_id"),
    ],
)
def test_bad_flags_give_one_sentence(argv, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_tokenizer(*argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--own_context_fraction", "0.5"],
            "own_context_fraction concerns copies of the context: give --context_copies 1",
        ),
        (["--pure_noise_fraction", "0.5"], "pure_noise_fraction concerns copies of the context"),
        (["--context_copies", "-1"], "expected 0 or more for --context_copies, got -1"),
        (["--context_copies", "1", "--own_context_fraction", "2"], "expected a share from 0 to 1 for --own_context"),
        (["--sequence_length", "1"], "expected a --sequence_length of at least 2"),
        (["--context_copies", "1", "--num_context_frames", "16"], "no frame of a window would have a loss"),
    ],
)
def test_objectives_that_contradict_themselves_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_dynamics(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates: 1\n", "unknown option 'learning_rates' in .*mine.yaml: did you mean learning_rate"),
        ("learning_rate: [\n", "is not YAML"),
        ("- 1\n", "holds no options"),
        ("seed: often\n", "invalid int value: 'often'"),
    ],
)
def test_bad_config_files_give_one_sentence(tmp_path, text, message):
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        parse_tokenizer("--config", str(config))
    assert "\n" not in str(error.value)


def test_missing_files_and_required_keys():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        parse_tokenizer("--config", "nowhere.yaml")
    with pytest.raises(ValueError, match="--data_dir is missing"):
        parse_arguments(TokenizerArguments, ["--output_dir", "out"])
    with pytest.raises(ValueError, match="--tokenizer is missing"):
        parse_arguments(DynamicsArguments, REQUIRED)


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
            lengths = (keys.model.context_length, keys.data.sequence_length, keys.data.long_sequence_length)
            assert lengths == windows[preset]


@pytest.mark.parametrize(
    ("arguments_class", "config_class"),
    [(TokenizerArguments, DreamerTokenizerConfig), (DynamicsArguments, DreamerDynamicsConfig)],
)
def test_the_options_of_a_model_are_the_fields_of_its_config(arguments_class, config_class):
    names = [option.name for option in arguments_class.options()]
    assert len(names) == len(set(names)), "an option belongs to one section"
    for option in arguments_class.sections()["model"].__dataclass_fields__.values():
        assert option.default is None and option.name in config_class.__dataclass_fields__
        assert not option.metadata["help"].startswith("see "), f"{option.name} is missing in the docstring"


def test_a_resumed_run_needs_only_its_folder(tmp_path):
    argv = ["--preset", "pusht-tiny", "--data_dir", "shards", "--tokenizer", "t", "--hidden_size", "64", "--seed", "3"]
    first = parse_arguments(DynamicsArguments, [*argv, "--output_dir", str(tmp_path), "--freeze", "space", "time",
                                                "--pretrained", "w", "--ramp_weight", "true"])  # fmt: skip
    save_arguments(tmp_path, first)
    resume = ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest"]
    again = parse_arguments(DynamicsArguments, resume)
    first.run.resume_from_checkpoint = "latest"
    assert again == first
    changed = parse_arguments(DynamicsArguments, [*resume, "--max_train_steps", "9", "--hidden_size", "32"])
    assert (changed.run.max_train_steps, changed.model.hidden_size, changed.run.seed) == (9, 32, 3)


def test_saved_options_of_earlier_versions_are_understood(tmp_path):
    saved = {"past_copies": 1, "adam_beta1": 0.9, "split_seed": 42, "output_dir": "elsewhere", "learning_rate": 0.1}
    (tmp_path / ARGUMENTS_FILE).write_text(json.dumps(saved))
    (tmp_path / PATHS_FILE).write_text(json.dumps({"data_dir": "shards", "tokenizer": "t", "config": None}))
    arguments = parse_arguments(
        DynamicsArguments, ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest"]
    )
    assert (arguments.objective.context_copies, arguments.optimizer.learning_rate) == (1, 0.1)
    assert (arguments.data.data_dir, arguments.run.output_dir) == ("shards", str(tmp_path))


def test_damaged_saved_options_give_one_sentence(tmp_path):
    (tmp_path / ARGUMENTS_FILE).write_text('{"seed": 1')
    with pytest.raises(ValueError, match=rf"{ARGUMENTS_FILE} is damaged \(.*delete it and give the options"):
        parse_tokenizer("--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest")
