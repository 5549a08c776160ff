"""Trust in play: a gauge, a column of the recording, and what is refused."""

import json

import numpy as np
import pytest

from dreamer_hf.dreams import Dreams
from dreamer_hf.play.gauges import gauge_values, gauges_of
from dreamer_hf.trust import TrustModel, trust_content
from tiny import make_starts, make_world

MODEL = TrustModel(("spread",), (1.0,), 2.0, "image", 6.0, 100, 10, 0.8, 4)


def test_gauges_show_the_state_and_then_the_trust():
    state = {"mean": [0.0, 5.0], "std": [1.0, 2.0], "min": [-3.0, 0.0], "max": [3.0, 9.0]}
    world = make_world(state_dim=2, state_stats=state, state_names=["x", "y"], state_units=["m", "m"])
    for trust, names in ((None, ("x", "y")), (MODEL, ("x", "y", "trust"))):
        dreams = Dreams(world, make_starts(), trust=trust)
        (dream,) = dreams.begin([0], [0])
        dreams.step([dream], [dreams.space.rest])
        gauges, values = gauges_of(dreams), gauge_values(dream)
        assert gauges.names == names and len(values) == len(names)
        np.testing.assert_array_equal(values[:2], dream.state)
    assert gauges.low[-1] == 0 and gauges.high[-1] == 1 and values[-1] == np.float32(dream.trust)
    assert gauges.labels[-1] == "trust"


def test_a_world_without_a_trust_model_says_how_to_fit_one(run_here):
    status, _, errors = run_here("--headless", "--steps", "2", "--trust")
    assert status == 2 and "fit one with `dreamer trust" in errors


@pytest.mark.slow
def test_a_recorded_dataset_has_a_column_of_trust(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from dreamer_hf.action_space import ActionSpace
    from dreamer_hf.play.recorders import DatasetRecorder

    space = ActionSpace.from_config(make_world().config.dynamics_config)
    recorder = DatasetRecorder(tmp_path / "dreams", space, fps=20, action_offset=1, has_trust=True)
    frame = np.zeros((64, 64, 3), np.uint8)
    for step in range(4):
        recorder.add(frame, np.zeros(2, np.float32), frame, (None, None), (1 - step / 10, 0.9 - step / 10))
    recorder.close()
    dataset = LeRobotDataset("dreamer_hf/dreams", root=tmp_path / "dreams", video_backend="pyav")
    np.testing.assert_allclose([float(dataset[index]["trust"]) for index in range(4)], [1.0, 0.9, 0.8, 0.7], rtol=1e-6)


def test_environments_report_trust(world_folder, tmp_path):
    import gymnasium

    import dreamer_hf.envs  # noqa: F401  (registers the environments)

    (tmp_path / "trust.json").write_text(json.dumps(trust_content(MODEL)))
    env = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=str(world_folder), trust=tmp_path)
    _, info = env.reset(seed=1)
    assert info["trust"] == 1.0
    *_, info = env.step(env.action_space.sample())
    assert 0 <= info["trust"] < 1
    rows = gymnasium.make_vec("dreamer_hf/DreamerWorld-v0", num_envs=2, model=str(world_folder), trust=MODEL)
    rows.reset(seed=1)
    *_, infos = rows.step(rows.action_space.sample())
    assert infos["trust"].shape == (2,) and (infos["trust"] < 1).all()
    plain = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=str(world_folder))
    assert "trust" not in plain.reset(seed=1)[1]
    with pytest.raises(ValueError, match="a loaded world does not know where its trust model is"):
        gymnasium.make("dreamer_hf/DreamerWorld-v0", model=make_world(), start=make_starts(), trust=True)
