"""`--preset auto`: what it chooses for which data and machine."""

import dataclasses

import pytest

from dreamer_hf.configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig
from dreamer_hf.training.argument_parsing import parse_arguments
from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments
from dreamer_hf.training.auto_facts import describe_auto_preset, read_data_facts
from dreamer_hf.training.auto_preset import DataFacts, Machine, choose_options

ARM = DataFacts((72, 96), num_cameras=1, action_dim=2, state_dim=2, num_frames=4320, episode_length=80)
LARGE = dataclasses.replace(ARM, frame_size=(240, 320), num_frames=500_000)
CPU, SMALL_GPU, LARGE_GPU = Machine(), Machine(gpu_memory=12), Machine(gpu_memory=80)


def chosen(kind: str, data: DataFacts = ARM, machine: Machine = CPU, minutes: float = 30) -> dict:
    return {choice.option: choice.value for choice in choose_options(data, machine, minutes)[kind]}


@pytest.mark.parametrize(
    ("frame_size", "patch"),
    [((72, 96), 12), ((64, 64), 16), ((96, 96), 16), ((128, 128), 16), ((84, 84), 14), ((120, 160), 20)],
)
def test_patches_divide_the_frame_into_few(frame_size, patch):
    assert chosen("tokenizer", dataclasses.replace(ARM, frame_size=frame_size))["patch_size"] == patch


@pytest.mark.parametrize(
    ("frame_size", "advice"),
    [((73, 97), "--width 96 --height 72"), ((76, 100), "--width 96 --height 72"), ((481, 641), "--width .* --height")],
)
def test_frames_that_no_patch_divides_are_refused_with_a_size_that_works(frame_size, advice):
    height, width = frame_size
    with pytest.raises(ValueError, match=f"for frames of {width} x {height} pixels: .*{advice}") as error:
        chosen("tokenizer", dataclasses.replace(ARM, frame_size=frame_size))
    words = str(error.value).replace(",", "").split()
    advised = int(words[words.index("--height") + 1]), int(words[words.index("--width") + 1])
    patch = chosen("tokenizer", dataclasses.replace(ARM, frame_size=advised))["patch_size"]
    assert [side % patch for side in advised] == [0, 0]


def test_size_follows_memory_data_and_minutes():
    def widths(*facts):
        return [chosen(kind, *facts)["hidden_size"] for kind in ("tokenizer", "dynamics")]

    assert widths(ARM, CPU, 30) == [128, 128]
    assert widths(ARM, LARGE_GPU, 30) == [128, 128]  # too few frames for more
    assert widths(LARGE, CPU, 30) == [128, 128]
    assert widths(LARGE, SMALL_GPU, 600) == [256, 256]
    assert widths(LARGE, LARGE_GPU, 10) == [256, 256]
    assert widths(LARGE, LARGE_GPU, 600) == [512, 512]
    assert chosen("dynamics", LARGE, LARGE_GPU)["mixed_precision"] == "bf16"
    assert "mixed_precision" not in chosen("dynamics", LARGE, CPU)


def test_minutes_are_split_and_the_schedule_follows_them():
    tokenizer, dynamics = chosen("tokenizer", minutes=10), chosen("dynamics", minutes=10)
    assert (tokenizer["max_train_minutes"], dynamics["max_train_minutes"]) == (4, 6)
    for kind in ("tokenizer", "dynamics"):
        long, short = chosen(kind, minutes=100), chosen(kind, minutes=0.1)
        assert short["lr_warmup_steps"] < long["lr_warmup_steps"]
        assert long["eval_steps"] > short["eval_steps"]
    few = chosen("tokenizer", dataclasses.replace(ARM, num_frames=100_000))["max_train_steps"]
    assert few > tokenizer["max_train_steps"]


def test_windows_fit_the_episodes():
    for length, window in ((200, 32), (31, 24), (13, 12), (4, 4)):
        dynamics = chosen("dynamics", dataclasses.replace(ARM, episode_length=length))
        assert dynamics["sequence_length"] == window
        assert 0 < dynamics["num_context_frames"] < window
        assert dynamics["per_device_batch_size"] * window <= 128
    with pytest.raises(ValueError, match=r"episodes of at least 4 frames, but most have 3: .*--min_episode_length"):
        chosen("dynamics", dataclasses.replace(ARM, episode_length=3))


def test_cameras_actions_and_states_decide_the_tokens_of_a_frame():
    wide = dataclasses.replace(ARM, num_cameras=3, action_dim=20, state_dim=33)
    dynamics = chosen("dynamics", wide)
    assert (dynamics["num_action_tokens"], dynamics["num_state_tokens"]) == (2, 3)
    assert "num_state_tokens" not in chosen("dynamics", dataclasses.replace(ARM, state_dim=0))
    latents = [chosen("tokenizer", dataclasses.replace(ARM, num_cameras=n))["num_latent_tokens"] for n in (1, 2, 3, 4)]
    assert latents == sorted(latents, reverse=True)


@pytest.mark.parametrize("data", [ARM, LARGE, dataclasses.replace(ARM, frame_size=(64, 64), num_cameras=2)])
@pytest.mark.parametrize("machine", [CPU, SMALL_GPU, LARGE_GPU], ids=lambda machine: machine.name)
def test_every_choice_is_an_option_that_makes_a_model(data, machine):
    for kind, config_class in (("tokenizer", DreamerTokenizerConfig), ("dynamics", DreamerDynamicsConfig)):
        options = chosen(kind, data, machine)
        fields = {field.name for field in dataclasses.fields(config_class)}
        frames = {"image_size": list(data.frame_size)} if kind == "tokenizer" else {}
        config_class(**frames, **{name: value for name, value in options.items() if name in fields})


def test_flags_override_and_the_table_says_so(tiny_shards):
    words = ["--preset", "auto", "--data_dir", str(tiny_shards), "--output_dir", "out", "--patch_size", "16"]
    arguments = parse_arguments(TokenizerArguments, words)
    assert arguments.model.patch_size == 16
    assert arguments.objective.pyramid_weight == 1  # of the preset that it builds on
    table = describe_auto_preset(arguments)
    facts = read_data_facts(str(tiny_shards), 0.9)
    assert f"{facts.num_frames:,} frames of {facts.frame_size[1]} x {facts.frame_size[0]} from 1 camera" in table
    row = next(line for line in table.splitlines() if line.strip().startswith("patch_size"))
    assert "16" in row and "yours, instead of" in row
    assert not any("yours" in line for line in table.splitlines() if "num_latent_tokens" in line)


def test_bad_input_of_the_preset(tmp_path, tiny_shards):
    with pytest.raises(ValueError, match="give its folder as --data_dir"):
        parse_arguments(TokenizerArguments, ["--preset", "auto", "--output_dir", "out"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        parse_arguments(TokenizerArguments, ["--preset", "auto", "--data_dir", str(tmp_path / "nowhere")])
    words = ["--preset", "auto", "--data_dir", str(tiny_shards), "--output_dir", "out", "--tokenizer", "t"]
    with pytest.raises(ValueError, match="above 0 for --max_train_minutes, got -1"):
        parse_arguments(DynamicsArguments, [*words, "--max_train_minutes", "-1"])
    with pytest.raises(ValueError, match=r"max_train_minutes.*'soon'"):
        parse_arguments(DynamicsArguments, [*words, "--max_train_minutes", "soon"])
