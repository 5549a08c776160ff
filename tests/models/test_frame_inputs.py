"""Frames and actions are taken as people have them, in every public function that takes them."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from dreamer_hf import DreamerVideoProcessor, DreamerWorldModel
from dreamer_hf.frame_inputs import prepare_frames, to_unit_range
from dreamer_hf.start_frames import StartFrames
from tiny import dynamics_config, randn, tiny_dynamics, tiny_tokenizer, tiny_world

RAW = torch.randint(0, 256, (2, 3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
FLOAT = RAW / 255
FORMS = {
    "uint8": RAW,
    "int64": RAW.long(),
    "float64": RAW.double() / 255,
    "NumPy": RAW.numpy(),
    "NumPy int32": RAW.numpy().astype(np.int32),
    "NumPy float": FLOAT.numpy(),
    "channels last in memory": RAW.contiguous().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "StartFrames": StartFrames(RAW, torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    return tiny_world()


@pytest.mark.parametrize("frames", FORMS.values(), ids=FORMS)
@torch.no_grad()
def test_every_form_of_frames_is_encoded_as_float_frames_are(world, frames):
    expected = world.tokenizer.encode(FLOAT).latents
    assert torch.equal(world.tokenizer.encode(frames).latents, expected)
    assert torch.equal(world.encode(frames).latents, expected)
    rollout = world.start_rollout(frames, generator=seeded())
    assert torch.equal(rollout.latent_rollout.context.latents, expected)
    rollout.reset(FLOAT[:, :1])
    assert torch.equal(rollout.reset(frames), expected)
    assert torch.equal(rollout.reset(RAW[:1], rows=[1]), expected[:1])


@torch.no_grad()
def test_images_of_a_clip_are_resized_as_the_processor_does_it(world):
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)) for i in range(4)]
    processor = DreamerVideoProcessor.for_tokenizer(world.config.tokenizer_config)
    processed = processor([np.stack([np.asarray(image) for image in images])], return_tensors="pt")
    expected = world.encode(processed).latents
    assert expected.shape == (1, 4, 3, 5)
    torch.testing.assert_close(world.encode(images).latents, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(world.encode(processed.pixel_values_videos).latents, expected)
    with_alpha = [image.convert("RGBA") for image in images]
    assert torch.equal(world.encode(with_alpha).latents, world.encode(images).latents)


def test_bfloat16_models_normalize_in_float32():
    """Neighboring pixel values above 0.5 are one number in bfloat16; `(x - mean) / std` tells them apart."""
    tokenizer = tiny_tokenizer(image_mean=[0.875] * 3, image_std=[0.125] * 3).to(torch.bfloat16)
    frames = torch.full((1, 1, 3, 16, 16), 230, dtype=torch.uint8)
    normalized = tokenizer._normalize(prepare_frames(frames, tokenizer.config, tokenizer.device))
    expected = torch.full_like(normalized, (230 / 255 - 0.875) / 0.125)
    assert torch.equal(normalized, expected)
    rounded = frames.float().div(255).bfloat16()
    assert not torch.equal(tokenizer._normalize(prepare_frames(rounded, tokenizer.config, "cpu")), normalized)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FLOAT * 255, r"float frames from 0 to 1, got torch.float32 frames from 0 to 255"),
        (FLOAT - 0.5, "got torch.float32 frames from -0.5 to 0.5"),
        (FLOAT * torch.nan, "from nan to nan"),
        (RAW.long() + 1, "integer frames from 0 to 255 .*, got torch.int64 frames from 1 to 256"),
        (RAW > 128, "integer or float type, got torch.bool"),
        (RAW[..., :8], r"shape \(B, T, 3, 16, 16\) with at least one row and one frame, got \(2, 3, 3, 16, 8\)"),
        (RAW[0], r"got \(3, 3, 16, 16\)"),
        (RAW[:0], r"got \(0, 3, 3, 16, 16\)"),
        (RAW[:, :0], r"got \(2, 0, 3, 16, 16\)"),
        ([], "or a list of PIL images"),
        ([1, 2], "or a list of PIL images"),
        ([Image.new("RGB", (16, 16)), Image.new("RGB", (8, 16))], "PIL images of one size"),
    ],
)
def test_frames_that_cannot_be_meant_are_refused(world, frames, message):
    rollout = world.start_rollout(RAW)
    for take in (world.tokenizer.encode, world.encode, world.start_rollout, rollout.reset):
        with pytest.raises(ValueError, match=message):
            take(frames)
    with pytest.raises(ValueError, match=message):
        world.generate(frames, torch.zeros(2, 4, 2))


def test_values_that_rounding_brought_outside_are_taken(world):
    world.encode((FLOAT * (1 + 2e-7) - 1e-7).requires_grad_())


def test_training_looks_at_no_value():
    """A GPU would have to be waited for in every step."""
    tokenizer = tiny_tokenizer().train()
    tokenizer(FLOAT * 300)
    with pytest.raises(ValueError, match="from 0 to 300"):
        tokenizer.eval()(FLOAT * 300)


def test_unit_range_of_targets():
    assert torch.equal(to_unit_range(RAW), FLOAT) and to_unit_range(FLOAT.double()).dtype == torch.float32


# Actions


def test_start_frames_bring_their_actions(world):
    start = StartFrames(RAW, randn(2, 3, 2), torch.tensor([[False, True, True]] * 2))
    future, mask = randn(2, 4, 2, seed=1), torch.tensor([[True, True, False, True]] * 2)
    actions, masks = torch.cat([start.actions, future], 1), torch.cat([start.action_mask, mask], 1)
    expected = world.generate(RAW, actions, masks, generator=seeded())
    assert expected.pixel_values_videos.shape == (2, 4, 3, 16, 16)
    assert torch.equal(world.generate(start, future, mask, generator=seeded()).latents, expected.latents)
    frames = []
    rollout = world.start_rollout(start, generator=seeded())
    for index in range(4):
        frames.append(rollout.step(future[:, index], mask[:, index]).latents)
    torch.testing.assert_close(torch.stack(frames, 1), expected.latents, atol=1e-5, rtol=1e-5)
    for take in (world.start_rollout, rollout.reset):
        with pytest.raises(ValueError, match="StartFrames, which bring their own"):
            take(start, start.actions)


def test_generate_needs_an_action_for_every_frame(world):
    with pytest.raises(ValueError, match=r"\(B, C \+ F, a\) of all 3 context frames and .* got \(2, 2, 2\)"):
        world.generate(RAW, torch.zeros(2, 2, 2))
    for actions in (None, [[[0.0, 0.0]] * 3, [[0.0, 0.0]] * 4], [1.0, 2.0], "up"):
        with pytest.raises(ValueError, match="of all 3 context frames and of the frames to generate"):
            world.generate(RAW, actions)
    with pytest.raises(ValueError, match=r"actions of shape \(2, 5, 2\), got \(1, 5, 2\)"):
        world.generate(RAW, torch.zeros(1, 5, 2))
    assert world.generate(RAW, np.zeros((2, 3, 2))).latents.shape == (2, 0, 3, 5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e39])
def test_actions_that_are_not_finite_are_refused_unless_masked(world, value):
    actions, mask = torch.zeros(2, 3, 2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    actions[1, 2, 0], mask[1, 2] = value, False
    rollout = world.start_rollout(RAW, actions, mask)
    for take in (world.start_rollout, rollout.reset, world.generate):
        take(RAW, actions, mask)
        with pytest.raises(ValueError, match="finite actions"):
            take(RAW, actions)
    with pytest.raises(ValueError, match="finite actions"):
        rollout.step(actions[:, 2])
    assert rollout.step(actions[:, 2], mask[:, 2]).latents.isfinite().all()


def test_actions_are_clipped_to_the_training_data():
    stats = {"mean": [0.0] * 3, "std": [1.0] * 3, "min": [-2.0, 0.0, -1.0], "max": [3.0, 1.0, 4.0]}
    dynamics = tiny_dynamics(action_dim=3, action_stats=stats, action_num_classes=[0, 2, 0])
    world = DreamerWorldModel(tokenizer=tiny_tokenizer(), dynamics=dynamics)
    far = torch.tensor([[-40.0, 7.0, 4.5], [0.5, -3.0, 4.0]])
    near = torch.tensor([[-2.0, 1.0, 4.0], [0.5, 0.0, 4.0]])
    dreams = {}
    for name, action in {"far": far, "near": near}.items():
        everywhere = action[:, None].expand(-1, 5, -1)
        rollout = world.start_rollout(RAW, everywhere[:, :3], generator=seeded())
        stepped = rollout.step(action).latents
        rollout.reset(RAW[:1], everywhere[:1, :3], rows=[1], generator=None)
        dreams[name] = [stepped, world.generate(RAW, everywhere, generator=seeded()).latents]
        assert torch.equal(rollout.latent_rollout.context.actions, near[:, None].expand(-1, 3, -1))
    for first, second in zip(*dreams.values()):
        assert torch.equal(first, second)


def test_without_a_known_range_only_class_numbers_are_clipped():
    dynamics = tiny_dynamics(action_num_classes=[0, 3], action_stats={"mean": [0.0, 0.0], "std": [1.0, 1.0]})
    latents = randn(1, 2, 3, 5)

    def first_frame(action):
        return dynamics.start_rollout(latents, generator=seeded()).step([action]).latents

    assert torch.equal(first_frame([5.0, 9.0]), first_frame([5.0, 2.0]))
    assert not torch.equal(first_frame([50.0, 2.0]), first_frame([5.0, 2.0]))


def test_relative_actions_have_one_flag_per_component():
    assert dynamics_config().relative_actions is None
    assert dynamics_config(relative_actions=[True, False]).relative_actions == [True, False]
    with pytest.raises(StrictDataclassError, match="relative_actions has 1 entries"):
        dynamics_config(relative_actions=[True])
