"""Reads RLDS datasets (as `tensorflow-datasets` lays them out) without TensorFlow.

Formats: tfrecord, whose checksums are tested here, and array_record, which tests its own. Needs the extra `rlds`.
"""

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from ..episodes import (
    DamagedEpisode,
    Episode,
    RecordedRewards,
    RewardInfo,
    StateInfo,
    camera_names,
    choose_state_key,
    no_rewards,
    no_states,
    parse_ranges,
)
from ..files import check_not_lfs_pointer, first_line
from ..frame_transform import UnreadableImage, as_rgb, side_by_side

logger = logging.getLogger(__name__)
STATE_KEY, TERMINAL_KEY = "observation/state", "is_terminal"


class CorruptRecord(ValueError):
    """A record that is damaged, as far as its checksum or its content tells."""


@dataclass(frozen=True)
class RecordRange:
    """Successive records of one file: `first` to `first + count`."""

    path: Path
    first: int
    count: int


@dataclass
class RldsSource:
    """Episodes of an RLDS dataset; an `EpisodeSource`.

    Args:
        rlds_dir: the folder that holds `dataset_info.json`, or one above it that leads to a single version.
        split: a split expression: "train", "success+failure", "train[:10%]".
        image_key: path of the images within a step, "observation/image"; default: the only one; there may be
            several, separated by commas.
        action_key: path of the actions within a step; several, separated by commas, are joined.
        fps: frames per second, if known: RLDS does not say.
        episodes: which ones of the split, like "0:100"; default: all.
        skip_corrupt: whether to leave out damaged records and log how many, instead of refusing them.
        state_key: path of the state within a step; several, separated by commas, are joined; "none" for no state;
            default: `observation/state` if there is one.
        tile_cameras: whether several images are joined to one frame, side by side. Defaults to False.
        reward_key: path of the reward within a step; default: none are read. Where `is_terminal` is True, the episode
            ended for good.

    Raises:
        FileNotFoundError, ValueError: no dataset there, no such split or feature (the message names those that exist).
    """

    rlds_dir: Path
    split: str = "train"
    image_key: str | None = None
    action_key: str = "action"
    fps: float | None = None
    episodes: str | None = None
    skip_corrupt: bool = False
    state_key: str | None = None
    tile_cameras: bool = False
    reward_key: str | None = None

    def __post_init__(self) -> None:
        self.rlds_dir = _find_dataset(Path(self.rlds_dir))
        info = _builder(self.rlds_dir).info
        self._ranges = _split_ranges(info, self.split, self.rlds_dir)
        self.numbers = parse_ranges(self.episodes, range(sum(part.count for part in self._ranges)))
        self.lengths = None
        specs = _flatten(info.features["steps"].feature if "steps" in info.features else {})
        if not specs:
            raise ValueError(f"{self.rlds_dir} holds no episodes of steps: is it an RLDS dataset?")
        self._choose_images(specs)
        self._choose_actions(specs)
        self.action_units = None
        self.description = {"format": "rlds", "name": info.full_name, "split": self.split}

    def check(self) -> None:
        """See `EpisodeSource.check`."""
        for part in self._ranges:
            check_not_lfs_pointer(part.path)

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`. A record is read whole, as it is stored; its images are decoded one by one."""
        parser, skipped = _StepParser(_builder(self.rlds_dir).info.features, self._image_keys), []
        for number, read_record in self._records(numbers):
            vectors: tuple[list, ...] = [], [], [], []  # actions, states, rewards, terminals
            images = self._kept_images(partial(parser.steps, read_record, number), number, frame_step, vectors)
            actions, states = (partial(np.array, part) for part in vectors[:2])
            states = no_states if self.state is None else states
            rewards = no_rewards if self.rewards is None else partial(_recorded, *vectors[2:])
            yield Episode(number, self._refusing(images, skipped), actions, states, rewards)
        if skipped:
            logger.warning(f"skipped {len(skipped)} corrupt records of episodes {numbers[0]} to {numbers[-1]}")

    def _choose_images(self, specs: dict) -> None:
        images = sorted(name for name, feature in specs.items() if _may_be_image(feature))
        texts = [name for name, feature in specs.items() if _is_text(feature)]
        if self.image_key is None:
            if len(images) != 1:
                raise ValueError(f"choose images with --image_key, one or several of: {', '.join(images)}.")
            self.image_key = images[0]
        self._image_keys = self.image_key.split(",")
        for key in self._image_keys:
            if key not in images + texts:
                raise ValueError(f"steps have no images {key!r}; --image_key can be: {', '.join(images)}.")
        self.camera_names = None if self.tile_cameras else camera_names(self._image_keys)

    def _choose_actions(self, specs: dict) -> None:
        vectors = sorted(name for name, feature in specs.items() if _is_numeric(feature))
        self._action_keys = self.action_key.split(",")
        for key in self._action_keys:
            if key not in vectors:
                raise ValueError(f"steps have no numbers {key!r}; --action_key can be: {', '.join(vectors)}.")
        self.action_dim, self.action_names = _describe(self._action_keys, specs)
        state_key = choose_state_key(self.state_key, STATE_KEY, vectors)
        self._state_keys = [] if state_key is None else state_key.split(",")
        self.state = StateInfo(state_key, *_describe(self._state_keys, specs)) if state_key else None
        self._reward_keys = [self.reward_key] if self.reward_key else []
        if self.reward_key and (self.reward_key not in vectors or np.prod(specs[self.reward_key].shape) != 1):
            single = [name for name in vectors if np.prod(specs[name].shape) == 1]
            raise ValueError(
                f"steps have no single number {self.reward_key!r}; --reward_key can be: {', '.join(single)}."
            )
        self._terminal_keys = [TERMINAL_KEY] if self.reward_key and TERMINAL_KEY in specs else []
        self.rewards = None
        if self.reward_key:
            self.rewards = RewardInfo(self.reward_key, [self.reward_key], *self._terminal_keys)

    def _records(self, numbers: Sequence[int]):
        """Yield the number of each episode and a function that reads its record; files are opened once, in order."""
        start = 0
        for part in self._ranges:
            wanted = [number for number in numbers if start <= number < start + part.count]
            if wanted:
                read_file = _tfrecords if "tfrecord" in part.path.name else _array_records
                positions = [part.first + number - start for number in wanted]
                yield from zip(wanted, read_file(part.path, positions), strict=True)
            start += part.count

    def _kept_images(self, parse, number: int, frame_step: int, vectors: tuple[list, ...]) -> Iterator[np.ndarray]:
        """Yield the images of the kept steps, and append actions, states, rewards and ends of all to `vectors`; or
        `CorruptRecord`."""
        steps = parse()
        for position in range(len(steps)):
            where = f"episode {number}, step {position}"
            try:
                step = _flatten(steps[position])
            except Exception as error:  # tfds raises errors of many kinds.
                raise CorruptRecord(f"{where} cannot be decoded ({first_line(error)}).") from error
            chosen = self._action_keys, self._state_keys, self._reward_keys, self._terminal_keys
            for part, keys in zip(vectors, chosen, strict=True):
                part.append(np.concatenate([np.ravel(step[key]) for key in keys] or [np.zeros(0)]))
            if position % frame_step:
                continue
            try:
                views = [as_rgb(step[key], where) for key in self._image_keys]
            except UnreadableImage as error:
                raise CorruptRecord(str(error)) from error
            yield views if self.camera_names else side_by_side(views)

    def _refusing(self, images: Iterator[np.ndarray], skipped: list[str]) -> Iterator[np.ndarray]:
        """Pass images on; a corrupt record stops the conversion, or only its episode with `skip_corrupt`."""
        try:
            yield from images
        except CorruptRecord as error:
            if not self.skip_corrupt:
                raise
            logger.warning(f"skipping: {error}")
            skipped.append(str(error))
            raise DamagedEpisode(str(error)) from error


def _recorded(rewards: list, terminals: list) -> RecordedRewards:
    """Return the rewards of an episode next to the actions that earned them. `is_terminal` is about the step that an
    action leads to."""
    rewards, terminals = np.array(rewards, np.float32), np.array(terminals)
    if not terminals.size:
        return RecordedRewards(rewards)
    return RecordedRewards(rewards, np.append(terminals[1:, 0], terminals[-1:, 0]).astype(bool))


class _StepParser:
    """Parses records into steps whose images stay encoded: those that are kept are decoded here, with a look at their
    depth, which tfds would cut to 8 bits."""

    def __init__(self, features, image_keys: Sequence[str]):
        from tensorflow_datasets import decode

        self._features, self._decoders = features, {}
        specs = _flatten(features["steps"].feature)
        for key in image_keys:
            if type(specs[key]).__name__ != "Image":
                continue
            branch = self._decoders.setdefault("steps", {})
            *path, name = key.split("/")
            for part in path:
                branch = branch.setdefault(part, {})
            branch[name] = decode.SkipDecoding()

    def steps(self, read_record, number: int):
        """Return the steps of a record; each is decoded when it is asked for."""
        record = read_record()
        try:
            return self._features.deserialize_example_np(record, decoders=self._decoders or None)["steps"]
        except Exception as error:
            raise CorruptRecord(f"episode {number} cannot be decoded ({first_line(error)}).") from error


def _builder(folder: Path):
    # tensorflow-datasets asks Google's servers about every dataset otherwise.
    os.environ.setdefault("NO_GCE_CHECK", "true")
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.WARNING)  # It logs every folder that it opens.
    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be opened as a dataset ({first_line(error)}): download it again."
        ) from error


def _find_dataset(folder: Path) -> Path:
    found = sorted(path.parent for path in folder.glob("**/dataset_info.json"))
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found) or "none"
        raise FileNotFoundError(f"{folder} must lead to one folder with a dataset_info.json, but these do: {listed}.")
    return found[0]


def _split_ranges(info, split: str, folder: Path) -> list[RecordRange]:
    try:
        instructions = info.splits[split].file_instructions
    except Exception as error:
        raise ValueError(f"{folder} has no split {split!r}; it has: {', '.join(sorted(info.splits))}.") from error
    ranges = [RecordRange(Path(item.filename), item.skip, item.examples_in_shard) for item in instructions]
    ranges = [
        RecordRange(folder / part.path.name, part.first, item.take if item.take >= 0 else part.count - part.first)
        for part, item in zip(ranges, instructions, strict=True)
    ]
    for part in ranges:
        if not any(kind in part.path.name for kind in ("tfrecord", "array_record")):
            raise ValueError(f"{part.path.name} is neither tfrecord nor array_record: convert the dataset with tfds.")
        if not part.path.is_file():
            raise FileNotFoundError(f"{part.path} is missing: download the dataset again.")
    if not ranges:
        raise ValueError(f"split {split!r} of {folder} is empty: choose another with --split.")
    return ranges


def _tfrecords(path: Path, positions: Sequence[int]):
    """Yield, for each of these records (increasing), a function that returns its bytes or raises `CorruptRecord`."""
    wanted, last, broken, size = set(positions), positions[-1], False, path.stat().st_size
    with open(path, "rb") as file:
        for position in range(last + 1):
            header = b"" if broken else file.read(12)
            broken = len(header) < 12 or _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]
            length = 0 if broken else struct.unpack("<Q", header[:8])[0]
            broken = broken or length > size
            if position not in wanted:
                file.seek(length + 4, os.SEEK_CUR)
                continue
            body = b"" if broken else file.read(length + 4)
            yield partial(_checked, body, length, f"{path}, record {position}")


def _checked(body: bytes, length: int, where: str) -> bytes:
    if len(body) != length + 4 or _masked_crc(body[:length]) != struct.unpack("<I", body[length:])[0]:
        raise CorruptRecord(f"{where} is corrupt: download the file again, or give --skip_corrupt.")
    return body[:length]


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _array_records(path: Path, positions: Sequence[int]):
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
    except Exception as error:
        raise CorruptRecord(f"{path} is corrupt ({first_line(error)}): download it again.") from error
    for position in positions:
        yield partial(_read_array_record, reader, position, count, f"{path}, record {position}")
    reader.close()


def _read_array_record(reader, position: int, count: int, where: str) -> bytes:
    try:
        if position < count:
            return reader.read([position])[0]
        reason = f"the file holds {count}"
    except Exception as error:
        reason = first_line(error)
    raise CorruptRecord(f"{where} is corrupt ({reason}): download the file again, or give --skip_corrupt.")


def _describe(keys: Sequence[str], specs: dict) -> tuple[int, list[str] | None]:
    """Return the number of dimensions of joined features, and their names if there are several features."""
    widths = [int(np.prod(specs[key].shape)) for key in keys]
    if len(widths) < 2:
        return sum(widths), None
    pairs = zip(keys, widths, strict=True)
    return sum(widths), [key if width == 1 else f"{key}.{i}" for key, width in pairs for i in range(width)]


def _flatten(tree, prefix: str = "") -> dict:
    """Return nested dictionaries (or tfds' FeaturesDict) as one, with their keys joined by slashes."""
    flat = {}
    for key in tree:
        value = tree[key]
        nested = isinstance(value, dict) or hasattr(value, "items")
        flat.update(_flatten(value, f"{prefix}{key}/") if nested else {f"{prefix}{key}": value})
    return flat


def _may_be_image(feature) -> bool:
    shape = feature.shape
    is_array = len(shape) == 3 and feature.np_dtype == np.uint8
    return is_array or (shape == () and type(feature).__name__ in ("Image", "Tensor") and _is_text(feature))


def _is_text(feature) -> bool:
    return feature.np_dtype in (np.object_, np.bytes_, np.str_)


def _is_numeric(feature) -> bool:
    """Return whether it is numbers of a known shape, other than images."""
    return np.dtype(feature.np_dtype).kind in "fiub" and None not in feature.shape and not _may_be_image(feature)
