"""Case files: a case, and what was found with it, as npz with a JSON script inside. Nothing in one is ever executed.

The members are stored uncompressed and are read by this module rather than by NumPy, which believes
what the header of an array says of its size: here a file can make nobody allocate more than it
holds.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from bn_spec.case.arrays import Parts, put_together
from bn_spec.case.dtypes import Array, format_named
from bn_spec.case.encoding import Fetch, Place, decode, encode, outline
from bn_spec.case.script import Case
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import CaseFileError

FORMAT = "bn-spec case"
VERSION = 1

MOST_ELEMENTS = 2**24
"""Elements that a tensor of a case file may have, and channels that a layer may have: who plays it makes copies."""

NOTHING: Mapping[str, str] = MappingProxyType({})


def save(case: Case, path: str | os.PathLike[str], about: Mapping[str, str] = NOTHING) -> None:
    """Write the case, and what there is to say ``about`` it, to ``path``: whole or not at all.

    Raises:
        CaseFileError: a tensor has more than :data:`MOST_ELEMENTS` elements, so that nobody could
        read it.

    """
    content = encoded(case, about)
    with written_whole(path) as file:
        file.write(content)


def load(path: str | os.PathLike[str]) -> Case:
    """Read a case that :func:`save` wrote.

    Raises:
        FileNotFoundError: there is no such file. CaseFileError: the file is damaged, of another
        version, or not a case file. Nothing in it is executed.

    """
    return load_with_notes(path)[0]


def load_with_notes(path: str | os.PathLike[str]) -> tuple[Case, dict[str, str]]:
    """Read a case, and what was said about it; raise what :func:`load` raises."""
    with Path(path).open("rb") as file:
        try:
            return decoded(file.read())
        except CaseFileError as error:
            raise CaseFileError(f"{path}: {error}") from error.__cause__


def encoded(case: Case, about: Mapping[str, str] = NOTHING) -> bytes:
    """Return the content of a case file; the same for the same case. Raises what :func:`save` raises."""
    if (largest := _largest(case)) > MOST_ELEMENTS:
        raise CaseFileError(
            f"a case with a tensor or a layer of {largest} elements; files hold {MOST_ELEMENTS}"
        )
    arrays: list[Array] = []
    script = encode(case, _placed_in(arrays))
    header = json.dumps(
        {"format": FORMAT, "version": VERSION, "about": dict(about), "case": script}
    )
    members = {f"array_{i}": a for i, a in enumerate(arrays)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, script=np.array(header), **members)
    return buffer.getvalue()


def decoded(content: bytes) -> tuple[Case, dict[str, str]]:
    """Return a case, and what was said about it, from the content of a file; raise what :func:`load` raises."""
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(content):
                raise CaseFileError("its members claim to be larger than the file")
            members = _Members(archive)
            header = json.loads(str(members["script"]))
            if header["format"] != FORMAT:
                raise CaseFileError(f"format {header['format']!r}; expected {FORMAT!r}")
            if header["version"] != VERSION:
                raise CaseFileError(
                    f"version {header['version']!r} of the case format; this bn-spec reads {VERSION}"
                )
            about = {str(name): str(value) for name, value in header.get("about", {}).items()}
            case = decode(header["case"], _fetched_from(members))
    except CaseFileError:
        raise
    except Exception as e:  # zipfile, zlib, json and NumPy raise anything on damaged bytes
        raise CaseFileError(f"not a case file, or a damaged one ({type(e).__name__}: {e})") from e
    if (largest := _largest(case)) > MOST_ELEMENTS:
        raise CaseFileError(f"a tensor or a layer of {largest} elements; allowed: {MOST_ELEMENTS}")
    return case, about


class _Members:
    """The arrays of an archive, each no larger than what is there of it."""

    def __init__(self, archive: ZipFile) -> None:
        self.archive = archive

    def __getitem__(self, name: str) -> Array:
        info = self.archive.getinfo(f"{name}.npy")
        if info.compress_type != ZIP_STORED:
            raise CaseFileError(f"{name} is compressed; case files are not")
        content = self.archive.read(info)
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise CaseFileError(f"{name} holds Python objects; allowed: numbers")
        if prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise CaseFileError(
                f"{name} says that it has shape {shape}; it holds {len(content) - file.tell()} bytes"
            )
        return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()


def _largest(case: Case) -> int:
    """Return the number of elements of the largest tensor, or of channels."""
    state = () if case.state is None else case.state.tensors().values()
    given = (getattr(step, field.name) for step in case.steps for field in fields(step))
    tensors = (a for a in (*state, *given) if isinstance(a, np.ndarray))
    return max([case.config.num_features, *(prod(a.shape) for a in tensors)])


def _placed_in(arrays: list[Array]) -> Place:
    """Return a function that appends flat arrays to a list, and refers to them by position."""

    def place(a: Array) -> dict[str, Any]:
        flat, entry = outline(a)
        entry["array"] = len(arrays)
        if flat.dtype.kind == "V":  # npz knows NumPy's own dtypes only: bfloat16 goes as its bits
            entry["dtype"], flat = flat.dtype.name, flat.view(f"u{flat.itemsize}")
        arrays.append(flat)
        return entry

    return place


def _fetched_from(members: _Members) -> Fetch:
    def fetch(entry: dict[str, Any]) -> Array:
        flat = members[f"array_{int(entry['array'])}"]
        if "dtype" in entry:
            flat = flat.view(format_named(entry["dtype"]).dtype)
        shape, strides = (tuple(map(int, entry[name])) for name in ("shape", "strides"))
        return put_together(Parts(flat, shape, strides))

    return fetch
