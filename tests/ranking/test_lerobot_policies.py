"""Policies made by lerobot's own classes: what they see, what they give, and which do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer_hf.ranking.lerobot_policies import LeRobotPolicy
from dreamer_hf.ranking.observations import Observation, WorldView
from dreamer_hf.ranking.rank_units import DREAM, REAL, RankUnit, play_unit
from dreamer_hf.ranking.ranking_options import RankOptions

IMAGE, STATE, BLOCK = "observation.image", "observation.state", "observation.environment_state"
PUSHT = WorldView((), 0, 2, True)


def save_act(folder: Path, shapes: dict[str, tuple[int, ...]], action_dim: int = 2) -> str:
    """Save a small random ACT policy with its processors; its actions are around the middle of the table."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    kinds = {STATE: FeatureType.STATE, BLOCK: FeatureType.ENV}
    features = {key: PolicyFeature(kinds.get(key, FeatureType.VISUAL), shape) for key, shape in shapes.items()}
    config = ACTConfig(
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action_dim,))},
        device="cpu",
        chunk_size=4,
        n_action_steps=2,
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        use_vae=False,
        pretrained_backbone_weights=None,
    )
    torch.manual_seed(0)
    ACTPolicy(config).save_pretrained(folder)
    sizes = {key: shape if len(shape) == 1 else (3, 1, 1) for key, shape in shapes.items()} | {"action": (action_dim,)}
    stats = {key: {"mean": np.full(size, 0.5), "std": np.full(size, 0.5)} for key, size in sizes.items()}
    for key in {"action", STATE, BLOCK} & set(sizes):
        stats[key] = {"mean": np.full(sizes[key], 256.0), "std": np.full(sizes[key], 60.0)}
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def state_policy(tmp_path_factory) -> str:
    return save_act(tmp_path_factory.mktemp("act") / "pretrained_model", {STATE: (2,), BLOCK: (3,)})


def observation(count=3, size=32):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    scene = rng.uniform(100, 400, (count, 5))
    return Observation(lambda: frames, None, scene[:, :2], scene)


def test_actions_are_those_of_lerobots_own_pipeline(state_policy):
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    seen = observation()
    policy = LeRobotPolicy(str(Path(state_policy).parent))  # the folder of a checkpoint does, too
    policy.check_fits(PUSHT)
    policy.reset([0, 1, 2], seen)
    ours = [policy.act(seen) for _ in range(3)]

    theirs = ACTPolicy.from_pretrained(state_policy)
    before, after = make_pre_post_processors(theirs.config, pretrained_path=state_policy)
    scene = torch.tensor(seen.scene, dtype=torch.float32)
    theirs.reset()
    for actions in ours:
        with torch.no_grad():
            expected = after(
                theirs.select_action(before({STATE: scene[:, :2], BLOCK: scene[:, 2:], "task": [""] * 3}))
            )
        np.testing.assert_allclose(actions, expected, rtol=1e-5)
    assert actions.shape == (3, 2) and 0 < actions.mean() < 512


@pytest.mark.slow
def test_an_image_policy_gets_frames_of_its_size(tmp_path):
    policy = LeRobotPolicy(save_act(tmp_path / "image", {IMAGE: (3, 24, 24), STATE: (2,)}))
    assert policy.image_side == 24
    policy.check_fits(PUSHT)
    seen = observation()
    policy.reset([0, 1, 2], seen)
    first = policy.act(seen)
    policy.reset([0, 1, 2], seen)
    np.testing.assert_array_equal(policy.act(seen), first)
    assert seen.camera(0, (24, 24)).shape == (3, 3, 24, 24) and seen.camera(0, (24, 24)).max() <= 1
    other = observation()
    other.frames[:] = 0
    policy.reset([0, 1, 2], other)
    assert np.abs(policy.act(other) - first).max() > 1e-4


def test_a_policy_acts_in_dreams_and_for_real(state_policy, pusht_world, tmp_path):
    options = RankOptions(
        world=str(pusht_world),
        policies=(state_policy,),
        real="gym_pusht/PushT-v0",
        steps=4,
        episodes=2,
        engine="torch",
        output_dir=str(tmp_path / "out"),
    )
    for place in (DREAM, REAL):
        result = play_unit(RankUnit(state_policy, (0, 1), place, options))
        assert result["rewards"]["pusht:coverage"].shape == (2, 5)


def test_policies_that_do_not_fit_are_refused_with_both_sides(state_policy, tmp_path):
    policy = LeRobotPolicy(state_policy)
    for view, sentence in (
        (WorldView((), 0, 7, True), "gives actions of width 2 but the world takes 7"),
        (WorldView((), 0, 2, False), "needs a state of width 2 but the world has none"),
        (WorldView((), 6, 2, False), "needs a state of width 2 but the world has one of width 6"),
        (WorldView((), 2, 2, False), "needs observation.environment_state of width 3, which this world does not show"),
    ):
        with pytest.raises(ValueError, match=sentence):
            policy.check_fits(view)
    (tmp_path / "config.json").write_text('{"model_type": "dreamer_world"}')
    with pytest.raises(ValueError, match="give the folder of one of LeRobot"):
        LeRobotPolicy(str(tmp_path))


@pytest.mark.slow
def test_cameras_are_matched_by_name(tmp_path):
    images = {"observation.images.wrist": (3, 24, 24), "observation.images.top": (3, 24, 24)}
    policy = LeRobotPolicy(save_act(tmp_path / "two", images))
    policy.check_fits(WorldView(("top", "wrist"), 0, 2, False))
    with pytest.raises(
        ValueError, match=r"needs the image\(s\) observation.images.wrist but .* camera\(s\) top, side"
    ):
        policy.check_fits(WorldView(("top", "side"), 0, 2, False))
