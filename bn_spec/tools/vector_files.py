"""Writes test vectors to files that any language can read.

``docs/vectors.md`` describes every field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from bn_spec import __version__
from bn_spec.case.dtypes import Array
from bn_spec.case.encoding import outline
from bn_spec.case.whole_files import folder_written_whole
from bn_spec.oracle.bounds import Accuracy
from bn_spec.specification.requirement import SPECIFICATION
from bn_spec.tools.vectors import Call, ExpectedResult, Vector

FORMAT = "bn-spec vectors"
"""Name of the format."""

VERSION = 1
"""Version of the format."""

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "float64": "F64",
        "float32": "F32",
        "float16": "F16",
        "bfloat16": "BF16",
        "uint8": "U8",
    }
)
"""Names of the dtypes in safetensors, by their names in NumPy."""


@dataclass
class Arrays:
    """Flat little-endian arrays, equal ones only once.

    Attributes:
        kept: The arrays, by the number under which the manifest refers to them.
        numbers: The numbers, by dtype and bytes.

    """

    kept: dict[str, Array] = field(default_factory=dict)
    numbers: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def add(self, flat: Array) -> str:
        """Add an array, and return its number."""
        little = flat
        # bfloat16 has kind V, and NumPy cannot change its byte order.
        if flat.dtype.kind != "V":
            little = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
        key = flat.dtype.name, little.tobytes()
        if key not in self.numbers:
            self.numbers[key] = str(len(self.kept))
            self.kept[self.numbers[key]] = little
        return self.numbers[key]

    def tensor(self, a: Array) -> dict[str, Any]:
        """Add the memory that a tensor spans, and return the entry of the manifest."""
        flat, entry = outline(a)
        return {"array": self.add(flat), "dtype": a.dtype.name, **entry}

    def expected(self, e: ExpectedResult) -> dict[str, Any]:
        """Add the arrays of an expected result, in C order, and return its manifest entry."""
        parts: dict[str, Array] = {
            "value": e.value,
            "bound": e.bound,
            "judged": e.judged.astype(np.uint8),
        }
        entry: dict[str, Any] = {"shape": list(e.value.shape)}
        for name, a in parts.items():
            entry[name] = self.add(np.ravel(a))
        return entry


def write_vectors(
    vectors: Iterable[Vector], folder: Path, form: str, accuracy: Accuracy, seed: int
) -> int:
    """Write vectors to a new folder, whole or not at all.

    Args:
        vectors: The vectors.
        folder: The folder; it must not exist yet.
        form: A key of :data:`WRITERS`.
        accuracy: The claims under which the bounds hold.
        seed: The seed of the drawn cases.

    Returns:
        The number of vectors.

    Raises:
        ConfigError: The folder exists.
        OSError: The folder cannot be written.

    """
    arrays = Arrays()
    parts = [part.name for part in fields(Accuracy) if part.name != "dialect"]
    with folder_written_whole(folder) as new:
        entries = [_entry(vector, arrays) for vector in vectors]
        name = f"arrays.{form}"
        document = {
            "format": FORMAT,
            "version": VERSION,
            "bn-spec": __version__,
            "specification": SPECIFICATION,
            "seed": seed,
            "accuracy": {part: getattr(accuracy, part) for part in parts},
            "arrays": name,
            "vectors": entries,
        }
        manifest = json.dumps(document, indent=1, allow_nan=False) + "\n"
        (new / "manifest.json").write_text(manifest, "utf-8")
        WRITERS[form](new, name, arrays, entries)
    return len(entries)


def _entry(vector: Vector, arrays: Arrays) -> dict[str, Any]:
    config = vector.config
    return {
        "name": vector.name,
        "requirement": vector.requirement.id,
        "sentence": vector.requirement.sentence,
        "dtype": config.dtype,
        "num_features": config.num_features,
        "affine": config.affine,
        "track_running_stats": config.track_running_stats,
        "calls": [_call(call, arrays) for call in vector.calls],
    }


def _call(call: Call, arrays: Arrays) -> dict[str, Any]:
    return {
        "call": call.kind,
        "training": call.training,
        "eps": call.eps,
        "momentum": call.momentum,
        "num_batches_tracked": None if call.batches is None else list(call.batches),
        "tensors": {name: arrays.tensor(a) for name, a in call.tensors.items()},
        "expected": {name: arrays.expected(e) for name, e in call.expected.items()},
    }


# Containers ---------------------------------------------------------------------------------------


def _write_npz(folder: Path, name: str, arrays: Arrays, _: Sequence[Mapping[str, Any]]) -> None:
    """Write NumPy's container, with bfloat16 as uint16: it knows NumPy's own dtypes only."""
    members: dict[str, Array] = {}
    for number, a in arrays.kept.items():
        members[number] = a.view(f"<u{a.itemsize}") if a.dtype.kind == "V" else a
    np.savez(folder / name, allow_pickle=False, **members)


def _write_safetensors(
    folder: Path, name: str, arrays: Arrays, entries: Sequence[Mapping[str, Any]]
) -> None:
    """Write a safetensors file, and the flat manifest.

    A safetensors file consists of the length of its header in 8 bytes, the header as JSON, and the
    arrays. Arrays with larger elements come first, so every array is aligned if the file is mapped
    into memory.
    """
    ordered = sorted(arrays.kept.items(), key=lambda item: -item[1].itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "version": str(VERSION)}}
    end = 0
    for number, a in ordered:
        header[number] = {
            "dtype": KINDS[a.dtype.name],
            "shape": [a.size],
            "data_offsets": [end, end + a.nbytes],
        }
        end += a.nbytes
    text = json.dumps(header).encode()
    # Spaces up to a multiple of 8 bytes keep the first array aligned.
    text += b" " * (-len(text) % 8)
    with (folder / name).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, a in ordered:
            file.write(a.tobytes())
    start = 8 + len(text)
    places = {number: start + header[number]["data_offsets"][0] for number in arrays.kept}
    lines = [f"bn-spec-vectors {VERSION}"]
    for entry in entries:
        lines += _flat(entry, places)
    (folder / "manifest.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _flat(entry: Mapping[str, Any], places: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a vector in the flat manifest.

    Words have spaces between them; arrays are given by their offset in the file, in bytes.
    """
    yield _line("vector", entry["name"], entry["dtype"], entry["num_features"])
    for call in entry["calls"]:
        batches = call["num_batches_tracked"] or (-1, -1)
        momentum = "none" if call["momentum"] is None else call["momentum"]
        yield _line("call", call["call"], int(call["training"]), call["eps"], momentum, *batches)
        for name, t in call["tensors"].items():
            place = places[t["array"]]
            shape, strides = t["shape"], t["strides"]
            yield _line("tensor", name, t["dtype"], place, len(shape), *shape, *strides)
        yield "run"
        for name, e in call["expected"].items():
            size = int(np.prod(e["shape"]))
            offsets = [places[e[part]] for part in ("value", "bound", "judged")]
            yield _line("expect", name, size, *offsets)


def _line(*words: object) -> str:
    return " ".join(map(str, words))


Writer: TypeAlias = Callable[[Path, str, Arrays, Sequence[Mapping[str, Any]]], None]
"""Writes a file of arrays: takes the folder, the file name, the arrays and the vectors."""

WRITERS: Mapping[str, Writer] = MappingProxyType(
    {"safetensors": _write_safetensors, "npz": _write_npz}
)
"""Functions that write the arrays, by the name of the format."""
