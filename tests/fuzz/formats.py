"""The file formats that the package reads: an intact example of each, its reader, and what damage to try."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from dreamer_hf.data.action_data import read_action_table
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.shard_dataset import ShardDataset
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from dreamer_hf.data.sources.rlds_source import RldsSource
from dreamer_hf.loading import load_world
from dreamer_hf.play.action_sources import load_script
from dreamer_hf.published_checkpoints import convert_dynamics, convert_tokenizer
from dreamer_hf.serve import protocol
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.training.checkpoints import STATE_FILE
from fuzz.mutations import (
    Mutation,
    mutate_bytes,
    mutate_checkpoint,
    mutate_hdf5,
    mutate_json,
    mutate_npz,
    mutate_safetensors_header,
    mutate_torch_file,
    mutate_zip,
    with_fitting_record,
)
from fuzz.training_formats import CHECKPOINT, read_adapter, read_checkpoint, write_adapter, write_run
from tiny import TINY_REPO_ID, make_world, save_world, write_tiny_lerobot

FIXTURES = Path(__file__).parents[1] / "fixtures"
RLDS, PUBLISHED = FIXTURES / "rlds" / "tfrecord", FIXTURES / "golden" / "grouped_query"


@dataclass(frozen=True)
class Format:
    """One class of input.

    Attributes:
        name: how the table calls it.
        example: returns a folder with an intact example, given a folder for examples.
        pattern: which files of the example are damaged.
        read: the reader under test; its value can be compared.
        mutations: the kinds of damage.
        protected: whether the format has a checksum, so that another value than the original one is wrong.
        is_right: whether another value than the original one is what the changed files say.
    """

    name: str
    example: Callable[[Path], Path]
    pattern: str
    read: Callable[[Path], object]
    mutations: tuple[Mutation, ...] = (mutate_bytes,)
    protected: bool = True
    is_right: Callable[[Path, object], bool] = lambda folder, value: False


def fingerprint(values: Iterable) -> str:
    """Return a digest of tensors, arrays and texts: values, types and shapes."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            digest.update(value.encode())
            continue
        array = np.ascontiguousarray(value.numpy() if isinstance(value, torch.Tensor) else value)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _made_once(name: str):
    """Decorate a function that fills a folder, so that it returns the folder and fills it once."""

    def decorate(fill: Callable[[Path], object]):
        def example(folder: Path) -> Path:
            path = folder / name
            if not path.exists():
                unfinished = folder / f"{name}.unfinished"
                fill(unfinished)
                unfinished.rename(path)
            return path

        return example

    return decorate


@_made_once("lerobot")
def lerobot(path: Path) -> None:
    write_tiny_lerobot(path)


def shards(folder: Path) -> Path:
    source = lerobot(folder)

    @_made_once("shards")
    def fill(path: Path) -> None:
        convert(LeRobotSource(source, TINY_REPO_ID), path, ConversionOptions(episodes_per_shard=2))

    return fill(folder)


@_made_once("world")
def world(path: Path) -> None:
    save_world(path, make_world())


@_made_once("tables")
def tables(path: Path) -> None:
    path.mkdir()
    rows = np.random.default_rng(0).uniform(0, 500, (20, 2)).round(3)
    np.save(path / "actions.npy", rows)
    lines = [",".join(map(str, row)) for row in rows]
    (path / "plain.csv").write_text("\n".join(lines))
    (path / "named.csv").write_text("\n".join(['"x, left",y', *lines]) + "\n", encoding="utf-8-sig")
    (path / "german.csv").write_text("\n".join(line.replace(",", ";").replace(".", ",") for line in lines))


MESSAGES = (
    {"type": "input", "axes": [0.5, -1], "pointer": True, "seq": 3},
    {"type": "action", "action": [250.0, 260], "seq": 2**53},
    {"type": "pause", "paused": False},
    {"type": "step"},
    {"type": "reset", "start": 1, "seed": 7},
    {"type": "record", "on": True},
)


@_made_once("training_run")
def training_run(path: Path) -> None:
    write_run(path)


def checkpoint(folder: Path) -> Path:
    return training_run(folder) / "run"


def read_run_checkpoint(folder: Path) -> str:
    data_dir = next(
        parent / "training_run" / "data" for parent in folder.parents if (parent / "training_run").exists()
    )
    return fingerprint(read_checkpoint(folder / CHECKPOINT, data_dir))


@_made_once("adapter")
def adapter(path: Path) -> None:
    write_adapter(path)


@_made_once("messages")
def messages(path: Path) -> None:
    path.mkdir()
    for message in MESSAGES:
        (path / f"{message['type']}.json").write_text(json.dumps(message))


def read_shards(folder: Path) -> str:
    data = ShardDataset(folder, None, split="all")
    return fingerprint(value for i in range(data.num_episodes) for value in data.episode(i).values())


def read_metadata(folder: Path) -> tuple:
    """Return the values of the metadata, too: without its checksum the file may be edited."""
    data = ShardDataset(folder, None, split="all")
    described = {key: value for key, value in vars(data.metadata).items() if key != "extra"}
    return repr(described), read_shards(folder)


def edited_metadata_is_right(folder: Path, value: tuple) -> bool:
    """Return whether metadata without a checksum (an edited file has none) was read exactly as written."""
    content = json.loads((folder / "metadata.json").read_text())
    metadata = vars(ShardDataset(folder, None, split="all").metadata)

    def plain(item):
        return json.loads(json.dumps(item))

    derived = ("image_shape", "action_shape", "latent_shape", "state_shape", "extra")
    return all(
        metadata[key] is None or plain(metadata[key]) == item
        for key, item in content.items()
        if key in metadata and key not in derived
    )


def read_lerobot(folder: Path) -> str:
    source = LeRobotSource(folder, TINY_REPO_ID, episodes="0:2")
    source.check()
    values = [np.array(source.lengths), np.array(source.fps)]
    for episode in source.read(source.numbers, 1):
        values += [np.stack(list(episode.frames)), episode.actions(), episode.states()]
    return fingerprint(values)


def read_rlds(folder: Path) -> str:
    source = RldsSource(folder, "success", "observation/image")
    source.check()
    values = []
    for episode in source.read(source.numbers, 1):
        values += [np.stack(list(episode.frames)), episode.actions(), episode.states()]
    return fingerprint(values)


def rlds(folder: Path) -> Path:
    return RLDS


def published(folder: Path) -> Path:
    return PUBLISHED


def read_world(folder: Path) -> tuple:
    loaded = load_world(str(folder), "cpu")
    return loaded.config.to_json_string(use_diff=False), fingerprint(loaded.state_dict().values())


def edited_config_is_right(folder: Path, value: tuple) -> bool:
    """Return whether every value of an edited config was read exactly as written."""
    wrong = _differences(json.loads((folder / "config.json").read_text()), json.loads(value[0]))
    return not wrong and value[1] == _weights_of(folder.parent)


def _differences(written: dict, taken: dict) -> list[str]:
    found = []
    free = ("dtype", "transformers_version", "architectures", "weights_sha256", "image_size")
    for key, value in written.items():
        if isinstance(value, dict) and isinstance(taken.get(key), dict):
            found += _differences(value, taken[key])
        elif (
            key in taken
            and key not in free
            and value is not None
            and taken[key] != value
            and repr(taken[key]) != repr(value)
        ):
            found.append(key)
    return found


@cache
def _weights_of(scratch: Path) -> str:
    return fingerprint(make_world().state_dict().values())


def read_starts(folder: Path) -> str:
    return fingerprint(load_start_frames(folder).tensors().values())


def read_published(folder: Path) -> str:
    tokenizer, dynamics = convert_tokenizer(folder / "tokenizer.pt", 4), None
    facts = json.loads((PUBLISHED / "facts.json").read_text())
    dynamics = convert_dynamics(
        folder / "dynamics.pt", tokenizer.config.num_latent_tokens, facts["dynamics"]["num_attention_heads"]
    )
    return fingerprint([*tokenizer.state_dict().values(), *dynamics.state_dict().values()])


@cache
def action_space():
    from dreamer_hf.action_space import ActionSpace

    return ActionSpace.from_config(make_world().config.dynamics_config)


def read_tables(folder: Path) -> str:
    values = []
    for path in sorted(folder.iterdir()):
        actions, names = read_action_table(path)
        assert names is None or len(names) == actions.shape[1]
        scripted = load_script(str(path), action_space()).actions
        assert np.isfinite(scripted).all() and scripted.shape == actions.shape
        values.append(scripted)
    return fingerprint(values)


def read_messages(folder: Path) -> str:
    return repr([protocol.read_message(path.read_bytes(), action_space(), 2) for path in sorted(folder.iterdir())])


def messages_are_right(folder: Path, value: object) -> bool:
    """Compare what was read with the JSON, number by number."""
    for path in folder.iterdir():
        message = protocol.read_message(path.read_bytes(), action_space(), 2)
        written = json.loads(path.read_text())
        if isinstance(message, protocol.Input):
            taken = message.axes if message.action is None else message.action
            expected = np.zeros(2, np.float32)
            given = written.get("axes") if message.action is None else written["action"]
            expected[: len(given)] = given
            expected = np.clip(expected, -1, 1) if message.action is None else expected
            if not np.array_equal(taken, expected) or message.seq != (written.get("seq") or 0):
                return False
        elif isinstance(message, protocol.StartRequest):
            if (message.start, message.seed) != (written.get("start"), written.get("seed")):
                return False
        elif isinstance(message, protocol.Pause):
            if message.paused is not written.get("paused", True):
                return False
        elif isinstance(message, protocol.Record) and message.on is not written.get("on", True):
            return False
    return True


BYTES = (mutate_bytes,)
FORMATS = (
    Format("shards (HDF5)", shards, "shard_*.h5", read_shards, (mutate_bytes, mutate_hdf5)),
    Format("index.npz", shards, "index.npz", read_shards, (mutate_bytes, mutate_npz, mutate_zip)),
    Format(
        *("metadata.json", shards, "metadata.json", read_metadata, (mutate_bytes, mutate_json)),
        is_right=edited_metadata_is_right,
    ),
    Format(
        "world weights (safetensors)",
        world,
        "model.safetensors",
        read_world,
        (mutate_bytes, mutate_safetensors_header),
    ),
    Format(
        *("config.json of a world", world, "config.json", read_world, (mutate_bytes, mutate_json, mutate_json)),
        is_right=edited_config_is_right,
    ),
    Format(
        "start_frames.safetensors",
        world,
        "start_frames.safetensors",
        read_starts,
        (mutate_bytes, mutate_safetensors_header),
    ),
    Format("published .pt", published, "*.pt", read_published, (mutate_bytes, mutate_checkpoint, mutate_zip)),
    Format("LeRobot info.json", lerobot, "meta/info.json", read_lerobot, (mutate_bytes, mutate_json), protected=False),
    Format("LeRobot parquet", lerobot, "**/*.parquet", read_lerobot, protected=False),
    Format("LeRobot video (MP4)", lerobot, "videos/**/*.mp4", read_lerobot, protected=False),
    Format("RLDS records", rlds, "*success.tfrecord*", read_rlds),
    Format("RLDS descriptions (JSON)", rlds, "*.json", read_rlds, (mutate_bytes, mutate_json), protected=False),
    Format("action tables (CSV, NPY)", tables, "*", read_tables, protected=False),
    Format(
        "training checkpoints",
        checkpoint,
        f"{CHECKPOINT}/*",
        read_run_checkpoint,
    ),
    Format(
        *("training checkpoints: trainer_state.json", checkpoint, f"{CHECKPOINT}/{STATE_FILE}", read_run_checkpoint),
        (mutate_bytes, mutate_json),
        protected=False,
    ),
    Format(
        *("training checkpoints: weights with a fitting record", checkpoint, f"{CHECKPOINT}/*.safetensors"),
        read_run_checkpoint,
        (with_fitting_record(mutate_bytes), with_fitting_record(mutate_safetensors_header)),
        protected=False,
    ),
    Format(
        *("training checkpoints: optimizers with a fitting record", checkpoint, f"{CHECKPOINT}/*.bin"),
        read_run_checkpoint,
        (with_fitting_record(mutate_bytes), with_fitting_record(mutate_torch_file)),
        protected=False,
    ),
    Format(
        "adapters: weights",
        adapter,
        "*.safetensors",
        lambda folder: fingerprint(read_adapter(folder)),
        (mutate_bytes, mutate_safetensors_header),
        protected=False,
    ),
    Format(
        "adapters: JSON",
        adapter,
        "*.json",
        lambda folder: fingerprint(read_adapter(folder)),
        (mutate_bytes, mutate_json),
        protected=False,
    ),
    Format(
        "messages of players",
        messages,
        "*.json",
        read_messages,
        (mutate_bytes, mutate_json),
        is_right=messages_are_right,
    ),
)


def copy(example: Path, target: Path) -> None:
    """Replace `target` by a copy of `example`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(example, target)
