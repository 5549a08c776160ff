"""Rankings: of made-up policies in a made-up environment, of players in PushT, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up import Line

from dreamer_hf.ranking.rank import rank, rank_units
from dreamer_hf.ranking.rank_units import DREAM, REAL, RankUnit, play_unit
from dreamer_hf.ranking.ranking_options import RankOptions
from dreamer_hf.ranking.unit_cache import unit_key
from dreamer_hf.start_frames import save_start_frames
from tiny import make_starts, make_world, random_world

PUSHT = "gym_pusht/PushT-v0"


@pytest.fixture(scope="module")
def line_world(tmp_path_factory):
    """A random world with a state, of the made-up environment's form."""
    folder = tmp_path_factory.mktemp("line_world")
    stats = {"mean": [0.0] * 2, "std": [1.0] * 2, "min": [-1.0] * 2, "max": [1.0] * 2}
    state = {"state_dim": 2, "state_stats": stats, "state_names": ["x", "y"]}
    random_world(fps=10, action_stats=stats, **state).save_pretrained(folder)
    save_start_frames(folder, Line(None).reset([0, 1]))
    return folder


@pytest.fixture
def line(line_world, tmp_path):
    return RankOptions(
        world=str(line_world),
        policies=("made_up:slowly", "made_up:backward", "made_up:forward"),
        real="made_up:Line",
        score=("made_up:how_far",),
        episodes=4,
        steps=5,
        engine="torch",
        output_dir=str(tmp_path / "ranking"),
    )


def test_the_better_policy_of_a_made_up_environment_ranks_first(line, tmp_path):
    table = rank(line)
    report = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    score = "made_up:how_far"
    real = {name: policy["real"][score]["mean"][-1] for name, policy in report["policies"].items()}
    assert real == pytest.approx({"made_up:forward": 10, "made_up:slowly": 5, "made_up:backward": -10}, abs=1e-4)
    dreamed = [policy["dream"][score]["mean"][-1] for policy in report["policies"].values()]
    assert dreamed == sorted(dreamed, reverse=True)
    row = next(line for line in table.splitlines() if line.startswith("| made_up:forward"))
    assert "10.000 [10.000, 10.000] | 1 |" in row and "distrusted by" not in table and "no trust.json" in table
    assert report["agreement"][score]["pearson"]["mean"][-1] is not None
    assert (tmp_path / "ranking" / "ranking-1.png").stat().st_size > 1000
    episodes = np.load(tmp_path / "ranking" / "episodes.npz")
    assert episodes[f"made_up:forward|real|{score}"].shape == (4, 6)


def test_dreams_and_real_episodes_begin_alike_and_repeat(line):
    seeds = (3, 4)
    first, again = (play_unit(RankUnit("made_up:forward", seeds, DREAM, line)) for _ in range(2))
    np.testing.assert_array_equal(first["rewards"]["made_up:how_far"], again["rewards"]["made_up:how_far"])
    real = play_unit(RankUnit("made_up:forward", seeds, REAL, line))
    np.testing.assert_allclose(
        first["rewards"]["made_up:how_far"][:, 0], real["rewards"]["made_up:how_far"][:, 0], rtol=1e-6
    )
    noisy = play_unit(RankUnit("made_up:forward@noise=0.5", seeds, REAL, line))
    assert np.abs(noisy["rewards"]["made_up:how_far"] - real["rewards"]["made_up:how_far"])[:, -1].min() > 1e-3


def test_players_are_ranked_in_pusht(pusht_world, tmp_path):
    options = RankOptions(
        world=str(pusht_world),
        policies=("player:push", "player:rest", "player:push@noise=0.1"),
        real=PUSHT,
        score=("pusht:coverage", "pusht:goal", "pusht:reach:400,120"),
        episodes=3,
        steps=10,
        batch_size=2,
        cache_dir=str(tmp_path / "cache"),
        engine="torch",
        output_dir=str(tmp_path / "ranking"),
    )
    table = rank(options)
    assert "distrusted by 10, %" in table and "| Pearson r |" in table
    report = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    rest = report["policies"]["player:rest"]["real"]
    assert rest["pusht:coverage"]["mean"][-1] == pytest.approx(0, abs=0.02)
    assert len(report["policies"]["player:push"]["distrusted"]) == len(report["horizons"]) == 2
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(kept) == len(rank_units(options)) == 12

    def refuse(units):
        assert not list(units), "everything had been kept"
        return []

    again = rank(replace(options, output_dir=str(tmp_path / "again")), refuse)
    assert again == table
    held = replace(options, until_distrusted=True, distrust_below=1, output_dir=str(tmp_path / "held"))
    assert "Scores of dreams stay what they were" in rank(held, refuse)
    report = json.loads((tmp_path / "held" / "ranking.json").read_text())
    push = report["policies"]["player:push"]
    assert push["dream"]["pusht:goal"]["mean"] == [0, 0] and push["real"]["pusht:goal"]["mean"][-1] != 0
    (tmp_path / "cache" / kept[0]).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="player:push gives positions: leave out --policy_actions world"):
        rank(replace(options, policy_actions="world", output_dir=str(tmp_path / "refused")))
    assert not (tmp_path / "refused").exists()
    played = []
    rank(
        replace(options, output_dir=str(tmp_path / "third")),
        lambda units: [played.append(u) or play_unit(u) for u in units],
    )
    assert len(played) == 1


def test_the_negative_control_gives_dreams_the_next_actions(line):
    unit = RankUnit("made_up:forward@noise=0.5", (3, 4), DREAM, line)
    ours = play_unit(unit)["rewards"]["made_up:how_far"]
    swapped = play_unit(replace(unit, options=replace(line, other_actions=True)))["rewards"]["made_up:how_far"]
    np.testing.assert_allclose(ours[:, 0], swapped[:, 0])
    assert np.abs(ours - swapped)[:, 1:].max() > 1e-4


def test_a_cached_unit_is_one_of_the_same_world_policy_and_settings(line, tmp_path, monkeypatch):
    dream, real = (RankUnit("made_up:forward", (1,), place, line) for place in (DREAM, REAL))
    other_world = replace(line, world=str(tmp_path))
    assert unit_key(real) == unit_key(replace(real, options=other_world))
    assert unit_key(dream) != unit_key(replace(dream, options=other_world))
    assert unit_key(dream) != unit_key(replace(dream, seeds=(2,)))
    assert unit_key(real) != unit_key(replace(real, options=replace(line, steps=6)))
    keys = set()
    for weights in (b"first", b"second"):
        folder = tmp_path / weights.decode()
        (folder / "policy").mkdir(parents=True)
        (folder / "policy" / "model.safetensors").write_bytes(weights)
        monkeypatch.chdir(folder)  # the same name, but other weights
        keys |= {unit_key(replace(real, policy=f"policy{suffix}")) for suffix in ("", "@noise=0.1")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policies": ("player:pull",)}, "no player 'pull'"),
        ({"policies": ("player:push",)}, "plays PushT, which this world does not show"),
        ({"policies": ("made_up:nobody",)}, "cannot be imported"),
        ({"policies": ("made_up:SIZE",)}, "is not a function"),
        ({"policies": ("made_up:broken",)}, "not finite: give finite ones of shape"),
        ({"policies": ("made_up:forward@noise=much",)}, "write the noise as a number"),
        ({"policies": ("no/such/policy",)}, "cannot load a policy from 'no/such/policy'"),
        ({"real": PUSHT, "policies": ("made_up:forward",), "world": "wide"}, "takes 2 actions but .* has 3"),
        ({"score": ("pusht:coverage",)}, "is for PushT, which .* does not show"),
        ({"score": ("pusht:nonsense",)}, "no reward function"),
        ({"real": "gym/Nothing-v0"}, "no real environment 'gym/Nothing-v0': choose gym_pusht/PushT-v0"),
        ({"world": "no/such/world"}, "cannot load a world|no such"),
        ({"policy_actions": "absolute", "real": None, "world": None}, "no state of the width of its actions"),
    ],
)
def test_bad_input_is_refused_with_the_next_step(line, tmp_path, changes, sentence):
    if changes.get("world") == "wide":
        make_world(action_dim=3, action_names=None, action_stats=None, fps=10).save_pretrained(tmp_path / "wide")
        save_start_frames(tmp_path / "wide", make_starts(action_dim=3))
        changes = changes | {"world": str(tmp_path / "wide")}
    if changes.get("world", "") is None:
        plain = tmp_path / "plain"
        random_world(fps=10).save_pretrained(plain)
        save_start_frames(plain, replace(Line(None).reset([0]), states=None, state_mask=None))
        changes = changes | {"world": str(plain), "score": ("made_up:how_far",)}
    with pytest.raises((ValueError, OSError), match=sentence):
        rank(replace(line, **changes))


def test_options_out_of_range_are_refused(line):
    for changes, sentence in (
        ({"episodes": 0}, "positive int for --episodes"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"policies": ("a", "b", "a")}, "names a twice"),
        ({"distrust_below": 2.0}, "from 0 to 1"),
        ({"start": "somewhere"}, "leave out --start"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(line, **changes)
