"""Random damage to files: bytes, length and structure. Every function changes one file in place."""

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from dreamer_hf.data.files import json_checksum, read_json, write_json
from dreamer_hf.training.checkpoints import STATE_FILE

Mutation = Callable[[Path, np.random.Generator], None]

ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**400, -0.5, 0.5, 1e-30, 1e300, float("nan"), float("inf")),
    *("", "0", "a" * 1000, "\x00", "../../../etc/passwd", "/dev/zero", "{0}", "{missing}", "%s", [], {}, [[]], [None]),
    *([1, 2], [0], [-1, 3], ["a"], [1e300, 2], [float("nan")], {"a": 1}, [[1]], "rgb", "float32", "video"),
)


def mutate_bytes(path: Path, rng: np.random.Generator) -> None:
    """Flip bits, or overwrite, delete, insert, repeat or cut off bytes."""
    content = bytearray(path.read_bytes())
    if not content:
        return
    position = int(rng.integers(len(content)))
    length = int(rng.integers(1, 65))
    kind = rng.choice(["flip", "cut", "overwrite", "zero", "delete", "insert", "repeat"], p=[0.4, 0.2, *[0.08] * 5])
    if kind == "flip":
        for where in rng.integers(len(content), size=rng.integers(1, 4)):
            content[where] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del content[position:]
    elif kind == "overwrite":
        content[position : position + length] = rng.bytes(min(length, len(content) - position))
    elif kind == "zero":
        content[position : position + length] = bytes(min(length, len(content) - position))
    elif kind == "delete":
        del content[position : position + length]
    elif kind == "insert":
        content[position:position] = rng.bytes(length)
    else:
        content[position:position] = content[position : position + length]
    path.write_bytes(content)


def mutate_json(path: Path, rng: np.random.Generator) -> None:
    """Change one node of a JSON file; its checksum, if it has one, is left, removed or made to fit."""
    content = json.loads(path.read_text())
    changed = change_node(content, rng)
    if isinstance(changed, dict) and "checksum" in changed and rng.random() < 0.8:
        del changed["checksum"]
        if rng.random() < 0.5:
            changed["checksum"] = json_checksum(changed)
    path.write_text(json.dumps(changed))


def change_node(value, rng: np.random.Generator):
    """Return a JSON value with one node replaced, removed, renamed or wrapped."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))] if isinstance(value, dict) else int(rng.integers(len(value)))
        kind = rng.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.15 and isinstance(value, dict):
            value[f"{key}_"] = value.pop(key)
        elif kind < 0.2 and isinstance(value, list):
            value.append(value[key])
        else:
            value[key] = change_node(value[key], rng)
        return value
    if rng.random() < 0.15:
        return [value]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.3:
        return [value + 1, -value, value * 2, float(value), str(value)][rng.integers(5)]
    return ODD_VALUES[rng.integers(len(ODD_VALUES))]


def mutate_safetensors_header(path: Path, rng: np.random.Generator) -> None:
    """Change one node of the JSON header of a safetensors file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(change_node(json.loads(content[8:end]), rng)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def mutate_hdf5(path: Path, rng: np.random.Generator) -> None:
    """Remove, retype, reshape, empty, link or replace one array of an HDF5 file, or change its attributes."""
    with h5py.File(path, "r+") as file:
        key = list(file)[rng.integers(len(file))]
        values = file[key][()]
        kind = rng.choice(
            ["remove", "type", "shape", "empty", "group", "soft", "external", "virtual", "text", "attribute"]
        )
        if kind == "attribute":
            for attributes in (file.attrs, file[key].attrs):
                for name in list(attributes):
                    attributes[name] = ["", "a", "xxh3-64"][rng.integers(3)]
            return
        del file[key]
        if kind == "type":
            file[key] = values.astype(
                ["uint8", "int64", "float16", "float64", "bool", "complex64", "S4"][rng.integers(7)]
            )
        elif kind == "shape":
            file[key] = [values[:-1], values[..., None], values.reshape(-1), np.concatenate([values, values])][
                rng.integers(4)
            ]
        elif kind == "empty":
            file[key] = h5py.Empty("f4") if rng.random() < 0.5 else np.zeros((0,) * values.ndim, values.dtype)
        elif kind == "group":
            file.create_group(key)["a"] = values
        elif kind == "soft":
            file[key] = h5py.SoftLink(f"/{key}" if rng.random() < 0.5 else "/lengths")
        elif kind == "external":
            file[key] = h5py.ExternalLink("/etc/passwd", "/a")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource("elsewhere.h5", key, values.shape)
            file.create_virtual_dataset(key, layout)
        elif kind == "text":
            file[key] = "text"


def mutate_npz(path: Path, rng: np.random.Generator) -> None:
    """Change one array of an `.npz` file, whose CRCs fit afterwards."""
    with np.load(path) as arrays:
        arrays = dict(arrays)
    key = list(arrays)[rng.integers(len(arrays))]
    values = arrays[key]
    kind = rng.integers(9)
    if kind == 0:
        del arrays[key]
    elif kind == 1:
        arrays[key] = values[:-1]
    elif kind == 2:
        arrays[key] = values[::-1]
    elif kind == 3:
        arrays[key] = values.astype(["float64", "U4", "int8", "uint64", "complex64"][rng.integers(5)])
    elif kind == 4:
        arrays[key] = values[None]
    elif kind == 5:
        arrays[key] = np.where(np.arange(len(values)) == rng.integers(len(values)), rng.integers(-5, 99), values)
    elif kind == 6:
        arrays = {name: np.concatenate([array, array[-1:]]) for name, array in arrays.items()}
    elif kind == 7:
        arrays[key] = np.full(len(values), 2**62)
    else:
        arrays = {}
    np.savez_compressed(path, **arrays)


def mutate_checkpoint(path: Path, rng: np.random.Generator) -> None:
    """Remove, retype, reshape or replace one value of a `.pt` file."""
    content = torch.load(path, weights_only=True)
    tensors = content.get("model", content)
    key = list(tensors)[rng.integers(len(tensors))]
    value, kind = tensors[key], rng.integers(9)
    if kind == 0:
        del tensors[key]
    elif kind == 1:
        tensors[key] = value.to([torch.int64, torch.complex64, torch.bool][rng.integers(3)])
    elif kind == 2:
        tensors[key] = [value[:-1], value[None], value.flatten(), value[:0]][rng.integers(4)]
    elif kind == 3:
        tensors[key] = torch.full_like(value, [float("nan"), float("inf")][rng.integers(2)])
    elif kind == 4:
        tensors[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    elif kind == 5:
        tensors[f"{key}.extra"] = value
    elif kind == 6:
        tensors[key] = value.to_sparse()
    elif kind == 7:
        tensors[key] = torch.empty(value.shape, device="meta")
    else:
        content = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    torch.save(content, path)


def mutate_torch_file(path: Path, rng: np.random.Generator) -> None:
    """Change one node of the nested values of a file of `torch.save`, such as the state of an optimizer."""
    torch.save(change_node(torch.load(path, weights_only=False), rng), path)


def with_fitting_record(mutation: Mutation) -> Mutation:
    """Return a mutation of a file of a checkpoint after which the size and checksum on record fit the file."""

    def mutate(path: Path, rng: np.random.Generator) -> None:
        mutation(path, rng)
        content = path.read_bytes()
        state_file = path.parent / STATE_FILE
        state = read_json(state_file)
        state["files"][path.name] = [len(content), zlib.crc32(content)]
        write_json(state_file, state)

    mutate.__name__ = f"{mutation.__name__} with a fitting record"
    return mutate


def mutate_zip(path: Path, rng: np.random.Generator) -> None:
    """Remove, rename, repeat or empty one member of a zip file."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = list(members)[rng.integers(len(members))]
    kind = rng.integers(3)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[f"{name}_"] = members.pop(name)
    else:
        members[name] = b""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
