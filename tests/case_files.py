"""Case files written by hand: sound ones, unreadable ones and hostile ones."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest

from bn_spec.case.dtypes import Array
from bn_spec.case.npz import FORMAT, MOST_ELEMENTS, VERSION


def header(**changes: Any) -> dict[str, Any]:
    """Return a sound header of a case with one input of shape (2, 1, 1, 1)."""
    script = {
        "config": {"num_features": 1},
        "state": None,
        "steps": [
            {"step": "Forward", "x": {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]}}
        ],
    }
    return {"format": FORMAT, "version": VERSION, "case": script | changes}


def forward(**entry: Any) -> dict[str, Any]:
    """Return a header whose input is described by another entry."""
    x = {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]} | entry
    return header(steps=[{"step": "Forward", "x": x}])


def backward(
    of: Any = -1, wrt: Any = ("input",), steps: int = 1, step: str = "Backward", **entry: Any
) -> dict[str, Any]:
    """Return a header with recorded forwards and a backward; ``entry`` changes its dy."""
    x = {"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]}
    asked = {"step": "Forward", "x": x, "wrt": wrt}
    cotangent = {"input": x} if step == "DoubleBackward" else {}
    return header(steps=[*[asked] * steps, {"step": step, "dy": x | entry, "of": of} | cotangent])


def stepping(*steps: str, **arguments: Any) -> dict[str, Any]:
    """Return a header with these steps, the last one with arguments."""
    *before, last = ({"step": step} for step in steps)
    return header(steps=[*before, last | arguments])


def written(script: object, **members: Any) -> bytes:
    """Return a file with this script, as JSON unless it is a string, and these members."""
    buffer = io.BytesIO()
    text = script if isinstance(script, str) else json.dumps(script)
    np.savez(buffer, script=np.array(text), **{"array_0": np.zeros(2, np.float32)} | members)
    return buffer.getvalue()


def npz(**members: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Bomb:
    """Unpickling this is what must never happen."""

    def __reduce__(self) -> tuple[Callable[[str], NoReturn], tuple[str]]:
        return pytest.fail, ("a file was executed",)


BOMB = np.array([Bomb()], dtype=object)
DAMAGED = "not a case file, or a damaged one"

UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", DAMAGED),
    "random bytes": (bytes(range(256)), DAMAGED),
    "random bytes after a zip's magic": (b"PK\x03\x04" + bytes(range(256)), DAMAGED),
    "cut in half": (written(header())[: len(written(header())) // 2], DAMAGED),
    "without its last byte": (written(header())[:-1], DAMAGED),
    "a pickle": (pickle.dumps(Bomb()), DAMAGED),
    "an npy file": (npy(np.zeros(3)), DAMAGED),
    "an npy file of objects": (npy(BOMB), DAMAGED),
    "no script": (npz(array_0=np.zeros(2)), f"{DAMAGED} (KeyError: "),
    "a script of objects": (
        npz(script=BOMB),
        "script has Python objects as elements; allowed: numbers",
    ),
    "an array of objects": (
        written(header(), array_0=BOMB),
        "array_0 has Python objects as elements; allowed: numbers",
    ),
    "not JSON": (written("{"), DAMAGED),
    "JSON without end": (written("[" * 100_000), DAMAGED),
    "JSON of another kind": (written([]), DAMAGED),
    "no format": (written({}), f"{DAMAGED} (KeyError: 'format')"),
    "another format": (
        written(header() | {"format": "recipe"}),
        "format 'recipe'; expected 'bn-spec case'",
    ),
    "another version": (
        written(header() | {"version": 2}),
        "version 2 of the case format; this bn-spec reads version 1",
    ),
    "no version": (written({"format": FORMAT}), f"{DAMAGED} (KeyError: 'version')"),
    "no case": (written({"format": FORMAT, "version": VERSION}), f"{DAMAGED} (KeyError: 'case')"),
    "a case that is null": (written({"format": FORMAT, "version": VERSION, "case": None}), DAMAGED),
    "a config that no layer has": (
        written(header(config={"num_features": 0})),
        "num_features is 0",
    ),
    "a config with another argument": (
        written(header(config={"num_features": 1, "gamma": 1})),
        "gamma",
    ),
    "a state with another tensor": (written(header(state={"gamma": None})), "gamma"),
    "a state that is a list": (written(header(state=[1])), DAMAGED),
    "an unknown step": (written(header(steps=[{"step": "Sideways"}])), "'Sideways'"),
    "a step without an argument": (written(header(steps=[{"step": "Backward"}])), "'dy'"),
    "a backward of no forward": (
        written(backward(steps=0)),
        "step 1: forward -1 does not exist; the case has 0 Forward steps before it",
    ),
    "a backward of a forward that is half": (written(backward(of=0.5)), DAMAGED),
    "a backward of what was not recorded": (
        written(backward(wrt=[])),
        "step 2: forward -1 requires no gradient",
    ),
    "a dy of another shape in a double backward": (
        written(backward(step="DoubleBackward", shape=[1, 1, 1, 1])),
        "step 2: dy has shape (1, 1, 1, 1); allowed: (2, 1, 1, 1)",
    ),
    "a dy that reaches outside": (
        written(backward(shape=[3, 1, 1, 1])),
        "does not fit into 2 elements",
    ),
    "a gradient for another tensor": (
        written(backward(wrt=["gamma"])),
        "gradient 'gamma' is not known",
    ),
    "gradients of letters": (written(backward(wrt="input")), "gradient 'i' is not known"),
    "gradients that are null": (written(backward(wrt=None)), DAMAGED),
    "a step with another argument": (
        written(header(steps=[{"step": "Train", "mode": None}])),
        "mode",
    ),
    "a checkpoint that is not there": (
        written(stepping("Restore", of=-1)),
        "checkpoint -1 does not exist; the case has 0 Save steps before it",
    ),
    "a part of a checkpoint that no layer has": (
        written(stepping("Save", "Restore", only=["gamma"])),
        "tensor of a checkpoint 'gamma' is not known",
    ),
    "a part of a checkpoint in letters": (
        written(stepping("Save", "Restore", only="bias")),
        "checkpoint 'b' is not",
    ),
    "a part of a checkpoint that is null": (
        written(stepping("Save", "Restore", only=None)),
        DAMAGED,
    ),
    "a tensor that no layer has": (written(stepping("Load", gamma=None)), "gamma"),
    "an attribute that no layer has": (
        written(stepping("Set", name="gamma", value=1)),
        "'gamma' is not known",
    ),
    "a value that no attribute has": (
        written(stepping("Set", name="eps", value=None)),
        "step 1: eps is None",
    ),
    "a convolution of other channels": (
        written(
            stepping("Fold", weight={"array": 0, "shape": [2, 1, 1, 1], "strides": [1, 1, 1, 1]})
        ),
        "step 1: the convolution's weight has shape (2, 1, 1, 1); allowed: (1, I, h, w)",
    ),
    "a step that is a number": (written(header(steps=[1])), DAMAGED),
    "a step that is a list": (written(header(steps=[[]])), DAMAGED),
    "steps that are null": (written(header(steps=None)), DAMAGED),
    "an array that is missing": (
        written(forward(array=7)),
        "There is no item named 'array_7.npy' in the archive",
    ),
    "an index that is infinite": (written(forward(array=float("inf"))), DAMAGED),
    "strides that reach outside": (
        written(forward(strides=[2, 1, 1, 1])),
        "does not fit into 2 elements",
    ),
    "strides that are negative": (
        written(forward(strides=[-1, 1, 1, 1])),
        "does not fit into 2 elements",
    ),
    "a shape that is too large": (
        written(forward(shape=[3, 1, 1, 1])),
        "does not fit into 2 elements",
    ),
    "a shape beyond any memory": (written(forward(shape=[10**30], strides=[0])), DAMAGED),
    "an array of an unknown dtype": (written(forward(dtype="quaternion")), DAMAGED),
    "an array of a dtype that is no float": (written(forward(dtype="int8")), DAMAGED),
    "a dtype that is a number": (written(forward(dtype=2)), DAMAGED),
    "strides of another length": (written(forward(strides=[1])), DAMAGED),
}


def zipped(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Return an archive with these members, as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def of_shape(*shape: int) -> bytes:
    """Return an npy file that says it has this shape, and holds eight bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + bytes(8)


SCRIPT = npy(np.array(json.dumps(header())))
EXPANDED = {"array": 0, "shape": [MOST_ELEMENTS, 1, 2, 1], "strides": [0, 1, 1, 1]}
HUNGRY: dict[str, tuple[bytes, str]] = {
    "an array beyond any memory": (
        zipped(script=SCRIPT, array_0=of_shape(2**50)),
        f"array_0 has 8 bytes of elements; expected {2**52} for the shape ({2**50},) in its header",
    ),
    "zeros that are compressed": (
        zipped(zipfile.ZIP_DEFLATED, script=SCRIPT, array_0=npy(np.zeros(2**22, np.float32))),
        "the stated sizes of its members exceed the size of the file",
    ),
    "a compressed script": (
        zipped(zipfile.ZIP_DEFLATED, script=npy(np.array("["))),
        "script is compressed; members of a case file are stored as is",
    ),
    "one element that stands for many": (
        written(header(steps=[{"step": "Forward", "x": EXPANDED}])),
        f"a tensor has {2 * MOST_ELEMENTS} elements; allowed: {MOST_ELEMENTS}",
    ),
    "a layer of many channels": (
        written(header(config={"num_features": 2**40})),
        f"a layer has {2**40} channels; allowed: {MOST_ELEMENTS}",
    ),
}
