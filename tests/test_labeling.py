"""`dreamer label` on shards of the simulator's own frames."""

import numpy as np
import pytest

from dreamer_hf.cli import main
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.labels import read_labels
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardMetadata, shard_name
from dreamer_hf.labeling import reward_names
from dreamer_hf.pusht.task import make_pusht_env
from tiny import write_moving_square

SPOTS = ((128.0, 128.0), (384.0, 384.0))
SPOT_WORDS = ("128", "128", "384", "384")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """One episode with states and one without, of the agent on its way from one spot to the other."""
    folder, env = tmp_path_factory.mktemp("label"), make_pusht_env(64)
    with write_shard(folder / shard_name(0), action_dim=2, state_dim=5) as shard:
        for number in range(2):
            shard.begin_episode(number)
            states = []
            for way in np.linspace(0, 1, 5):
                agent = (1 - way) * np.array(SPOTS[0]) + way * np.array(SPOTS[1])
                observation, _ = env.reset(options={"reset_to_state": [*agent, 420, 120, 1.0]})
                shard.add_frame(observation["pixels"])
                states.append([*env.agent.position, *env.block.position, env.block.angle])
            shard.end_episode(np.zeros((5, 2), np.float32), None if number else np.array(states, np.float32))
        stats = shard.statistics.to_dict()
    env.close()
    fields = {"fps": 10.0, "color_order": "rgb", "action_stats": stats, "state_shape": (5,)}
    ShardMetadata(1, 2, (64, 64, 3), (2,), **fields).write(folder)
    return folder


def test_spots_become_tasks(data_dir, capsys):
    main("label", arguments=["--data_dir", str(data_dir), "--reward", "pusht:reach", "--to", *SPOT_WORDS])
    assert "solved in 20.0% of the frames" in capsys.readouterr().out
    labels = read_labels(data_dir / "labels" / "rewards.npz", ShardDataset(data_dir, None, split="all"))
    assert labels.task_names == ("pusht:reach:128,128", "pusht:reach:384,384")
    of_states, of_frames = labels.rewards
    assert of_states[0] == pytest.approx([1, 0], abs=0.01) and of_states[-1] == pytest.approx([0, 1], abs=0.01)
    assert np.abs(of_frames - of_states).max() < 0.02
    np.testing.assert_array_equal(labels.successes[0][:, 0], [True, False, False, False, False])


def test_names_of_tasks_and_of_the_labels_can_be_chosen(data_dir):
    argv = ["--reward", "pusht:coverage", "pusht:push:right", "--task_names", "cover", "push", "--name", "both"]
    main("label", arguments=["--data_dir", str(data_dir), *argv])
    labels = read_labels(data_dir / "labels" / "both.npz", ShardDataset(data_dir, None, split="all"))
    assert labels.task_names == ("cover", "push")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--reward", "pusht:reach"], "expected x and y of a spot"),
        (["--reward", "pusht:reach", "--to", "128"], "expected x and y of a spot"),
        (["--reward", "pusht:fly"], "choose one of pusht:coverage"),
        (["--reward", "pusht:coverage", "--task_names", "a", "b"], "a different name for each of 1 tasks"),
    ],
)
def test_bad_options_end_with_status_2_and_a_sentence(data_dir, argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        main("label", arguments=["--data_dir", str(data_dir), *argv])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_each_reach_gets_its_spot_and_one_gets_all():
    assert reward_names(["pusht:reach", "pusht:coverage"], (1, 2, 3, 4)) == [
        "pusht:reach:1,2",
        "pusht:reach:3,4",
        "pusht:coverage",
    ]
    assert reward_names(["pusht:reach", "pusht:reach"], (1, 2, 3, 4)) == ["pusht:reach:1,2", "pusht:reach:3,4"]


def test_frames_of_another_shape_are_refused(tmp_path, capsys):
    data = write_moving_square(tmp_path / "wide", width=24)
    with pytest.raises(SystemExit):
        main("label", arguments=["--data_dir", str(data), "--reward", "pusht:coverage"])
    assert "computed from square uint8 frames" in capsys.readouterr().err
