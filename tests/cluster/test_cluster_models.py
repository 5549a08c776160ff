"""Encoding, evaluating and dreaming on a real cluster: the results of one machine."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from computed_source import ComputedSource
from dreamer_hf.cli.commands import encode_latents, evaluate, rank
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.dreaming import DreamEngines, dream_rows
from dreamer_hf.cluster.spread import spread
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.dreams import Dreams
from dreamer_hf.engines.opening import open_world
from dreamer_hf.evaluation.evaluation_options import EvaluationOptions
from dreamer_hf.options import WorldOptions
from dreamer_hf.ranking.ranking_options import RankOptions
from dreamer_hf.start_frames import save_start_frames
from dreamer_hf.training.encode_options import EncodeOptions
from dreamer_hf.training.latents import encode_shards
from ftp_server import serving_ftp
from tiny import make_world, random_world, save_world

sys.path.append(str(Path(__file__).parents[1] / "ranking"))
from made_up import Line

pytestmark = pytest.mark.cluster


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def share_of(unit: int) -> str:
    if unit == 7:
        raise ValueError("seven cannot be done: choose another number.")
    return f"unit {unit}"


def test_models_on_two_nodes(cluster, tmp_path):
    torch.set_num_threads(1)  # as every worker has
    world = make_world(fps=10, action_names=["x", "y"])
    save_world(tmp_path / "world", world)
    frames = convert(ComputedSource(8), tmp_path / "frames", ConversionOptions(episodes_per_shard=2))
    for _ in range(2):
        cluster.add_node()
    with connected(cluster.address):
        encoding_is_the_same(cluster.address, world, frames, tmp_path)
        evaluation_is_the_same(cluster.address, frames, tmp_path)
        dreams_are_the_same(cluster.address, tmp_path)
        assert spread(share_of, range(5), cluster.address) == [f"unit {unit}" for unit in range(5)]
        with pytest.raises(ValueError, match=r"^on node .*: seven cannot be done: choose another number\.$"):
            spread(share_of, [7], cluster.address)


def encoding_is_the_same(address, world, frames, folder) -> None:
    encode_shards(Accelerator(cpu=True), world.tokenizer, str(frames), folder / "latents", resume=False)
    given = {"tokenizer": str(folder / "world"), "data_dir": str(frames), "ray": address}
    encode_latents(EncodeOptions(output_dir=str(folder / "latents_ray"), **given))
    assert content(folder / "latents_ray") == content(folder / "latents")
    # A run whose driver died after three shards, continued at an address.
    with serving_ftp(folder / "served") as server:
        shutil.copytree(folder / "latents", folder / "served" / "latents")
        for name in ("metadata.json", "index.npz", "shard_0003.h5"):
            (folder / "served" / "latents" / name).unlink()
        plan = {"source": str(frames), "tokenizer_fingerprint": world.tokenizer.fingerprint()}
        (folder / "served" / "latents" / "encoding.json").write_text(json.dumps(plan))
        encode_latents(EncodeOptions(output_dir=f"{server.address}/latents", resume=True, **given))
        (folder / "served" / "latents" / "encoding.json").unlink()
        (folder / "latents" / "encoding.json").unlink()
        assert content(folder / "served" / "latents") == content(folder / "latents")


def evaluation_is_the_same(address, frames, folder) -> None:
    given = {"model": str(folder / "world"), "data_dir": str(frames), "split": "all", "lpips_net": "none"}
    given |= {"num_context_frames": 3, "num_dream_frames": 4, "num_episodes": 7, "batch_size": 2, "num_videos": 3}
    reports = []
    for name, ray in (("evaluation", None), ("evaluation_ray", address)):
        evaluate(EvaluationOptions(output_dir=str(folder / name), device="cpu", ray=ray, **given))
        reports.append(json.loads((folder / name / "evaluation.json").read_text()))
    assert reports[0]["data"]["num_episodes"] == 7 and reports[0] == reports[1]


def dreams_are_the_same(address, folder) -> None:
    options = WorldOptions(model=str(folder / "world"), device="cpu", engine="torch")
    world, starts, _ = open_world(options.model, options)
    dreams = Dreams(world, starts)
    seeds, indices = [5, 6, 7, 8, 9], [0, 1, 0, 1, 0]
    actions = np.random.default_rng(0).uniform(0, 400, (5, 4, 2)).astype(np.float32)
    one = dream_rows(dreams, indices, seeds, actions)
    with DreamEngines(options, address, rows=2) as engines:
        many = engines.dream(indices, seeds, actions)
    assert many.frames.shape == one.frames.shape == (5, 4, 16, 16, 3) and many.states is None
    difference = np.abs(many.frames.astype(int) - one.frames)
    assert difference.max() <= 1, "dreams depend on their seeds alone, except for rounding"


def test_a_ranking_on_two_nodes(cluster, tmp_path):
    for _ in range(2):
        cluster.add_node(env_vars={"PYTHONPATH": os.pathsep.join(sys.path)})
    stats = {"mean": [0.0] * 2, "std": [1.0] * 2, "min": [-1.0] * 2, "max": [1.0] * 2}
    state = {"state_dim": 2, "state_stats": stats, "state_names": ["x", "y"]}
    random_world(fps=10, action_stats=stats, **state).save_pretrained(tmp_path / "line_world")
    save_start_frames(tmp_path / "line_world", Line(None).reset([0, 1]))
    given = {"world": str(tmp_path / "line_world"), "policies": ("made_up:slowly", "made_up:forward")}
    given |= {"real": "made_up:Line", "score": ("made_up:how_far",), "episodes": 4, "steps": 5, "batch_size": 1}
    scores = []
    for name, ray in (("ranking", None), ("ranking_ray", cluster.address)):
        rank(RankOptions(output_dir=str(tmp_path / name), engine="torch", device="cpu", ray=ray, **given))
        scores.append(dict(np.load(tmp_path / name / "episodes.npz")))
    assert scores[0].keys() == scores[1].keys() and len(scores[0]) >= 4
    for name, score in scores[0].items():
        np.testing.assert_allclose(scores[1][name], score, rtol=1e-4, atol=1e-5, err_msg=name)
