"""Trusted rollouts dream the same frames, their signals are what they claim to be, and rows come and go."""

import json

import numpy as np
import pytest
import torch

from dreamer_hf.dreams import Dreams
from dreamer_hf.engines import engine_for
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.trust import TrustedRollout, TrustModel, load_trust, trust_content
from tiny import make_starts, make_world

MODEL = TrustModel(("reencoding", "spread"), (2.0, 1.0), 3.0, "image", 6.0, 100, 10, 0.8, 4)
ACTIONS = np.random.default_rng(0).uniform([0, 10], [512, 500], size=(6, 3, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(scope="module")
def exported(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust_onnx") / "export"
    world.save_onnx(folder)
    return OnnxWorld.from_pretrained(folder, threads=1)


def rollout_of(world, seeds=(1, 2, 3)):
    starts = make_starts(num_starts=len(seeds))
    return world.start_rollout(starts, generator=[SeededNoise(seed) for seed in seeds])


def test_trust_follows_the_formula_and_falls_with_the_signals():
    signals = {"reencoding": np.array([0.1, 0.2]), "spread": np.array([0.05, 0.4])}
    score = 3 + 2 * np.log([0.1, 0.2]) + np.log([0.05, 0.4])
    np.testing.assert_allclose(MODEL(signals), 1 - 1 / (1 + np.exp(-score)), rtol=1e-6)
    assert MODEL({name: np.zeros(1) for name in signals}) == pytest.approx(1)  # no logarithm of zero


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_the_dream_is_the_same_and_its_signals_are_distances(engine, world, exported):
    model = world if engine == "torch" else exported
    plain, watched = rollout_of(model), TrustedRollout(engine_for(model), rollout_of(model), MODEL)
    for actions in ACTIONS:
        alone, output = plain.step(actions), watched.step(actions)
        np.testing.assert_array_equal(np.asarray(output.latents), np.asarray(alone.latents))
        np.testing.assert_array_equal(np.asarray(output.pixel_values), np.asarray(alone.pixel_values))
    latents = np.asarray(output.latents)
    frames = torch.tensor(np.asarray(output.pixel_values))
    with torch.no_grad():
        again = world.tokenizer.encode(frames[:, None]).latents[:, 0].numpy()
    distance = np.sqrt(np.square(latents - again).mean(axis=(1, 2)))
    np.testing.assert_allclose(watched.signals["reencoding"], distance, rtol=1e-3)
    assert (watched.signals["spread"] > 0).all() and watched.signals["step"].tolist() == [6, 6, 6]
    np.testing.assert_array_equal(output.trust, MODEL(watched.signals))
    assert output.trust.dtype == np.float32 and output.trust.shape == (3,)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_rows_keep_their_trust_when_they_are_copied_joined_and_restarted(engine, world, exported):
    model = world if engine == "torch" else exported
    watched = TrustedRollout(engine_for(model), rollout_of(model), MODEL)
    for actions in ACTIONS[:2]:
        watched.step(actions)
    apart = [watched.clone(rows=[2]), watched.clone(rows=[0, 1])]
    joined, whole = TrustedRollout.join(apart), watched.clone()
    expected = watched.step(ACTIONS[2]).trust
    np.testing.assert_allclose(joined.step(ACTIONS[2][[2, 0, 1]]).trust, expected[[2, 0, 1]], rtol=1e-3)
    watched.copy_(whole)
    np.testing.assert_allclose(watched.step(ACTIONS[2]).trust, expected, rtol=1e-4)

    starts = make_starts(num_starts=3)
    watched.reset(starts.select([1]), rows=[1], generator=[SeededNoise(9)])
    fresh = TrustedRollout(engine_for(model), rollout_of(model, (9, 9, 9)), MODEL)
    trust, alone = watched.step(ACTIONS[0]).trust, fresh.step(np.repeat(ACTIONS[0][1:2], 3, axis=0)).trust
    np.testing.assert_allclose(trust[1], alone[1], rtol=1e-3)
    assert watched.signals["step"].tolist() == [4, 1, 4]


def test_dreams_carry_their_trust_through_every_change(world):
    dreams = Dreams(world, make_starts(num_starts=3), trust=MODEL)
    first, second = dreams.begin([0, 1], seeds=[5, 6])
    assert first.trust == second.trust == 1.0
    dreams.step([first, second], ACTIONS[0][:2])
    (moment,) = dreams.clone([first])
    assert 0 <= first.trust < 1 and moment.trust == first.trust
    dreams.step([second], ACTIONS[1][:1])  # the other one waits
    dreams.step([first], ACTIONS[2][:1])
    later = first.trust
    dreams.rewind([first], [moment])
    assert first.trust == moment.trust
    dreams.step([first], ACTIONS[2][:1])
    assert first.trust == pytest.approx(later, rel=1e-4)
    dreams.restart([second], [2], seeds=[7])
    assert second.trust == 1.0
    assert Dreams(world, make_starts()).begin([0], [1])[0].trust is None


def test_the_file_is_read_as_written_and_damage_is_refused(tmp_path):
    (tmp_path / "trust.json").write_text(json.dumps(trust_content(MODEL)))
    assert load_trust(tmp_path) == MODEL == load_trust(tmp_path / "trust.json")
    content = trust_content(MODEL)
    for change in (
        {"weights": [1.0]},
        {"bias": "much"},
        {"bias": float("nan")},
        {"format_version": 9},
        {"signals": 3},
    ):
        (tmp_path / "trust.json").write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=r"is damaged .*fit one with `dreamer trust"):
            load_trust(tmp_path)
    (tmp_path / "trust.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_trust(tmp_path)
    (tmp_path / "trust.json").unlink()
    with pytest.raises(ValueError, match=r"carries no trust.json: fit one with `dreamer trust"):
        load_trust(tmp_path)
