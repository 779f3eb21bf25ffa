"""Count the catalogued faults that the exported test vectors catch.

Run it as ``python benchmarks/vectors.py``. It draws the float32 vectors that ``bn-spec vectors
export`` writes, and judges each specimen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bn_spec.case.arrays import private_copy
from bn_spec.case.config import State
from bn_spec.case.dtypes import Array
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.tools.vectors import Call, Vector, claims_of, vectors

DTYPE = "float32"
"""Dtype of the vectors."""


def caught(specimen: Specimen, drawn: Sequence[Vector]) -> bool:
    """Whether a specimen gets at least one vector wrong."""
    return any(fails(specimen, vector) for vector in drawn)


def fails(specimen: Specimen, vector: Vector) -> bool:
    """Whether a specimen gets at least one call of a vector wrong."""
    return any(is_wrong(specimen, vector, call) for call in vector.calls)


def is_wrong(specimen: Specimen, vector: Vector, call: Call) -> bool:
    """Whether a specimen raises, or returns an array of the wrong shape or beyond its bound."""
    try:
        returned = answered(specimen, vector, call)
    except Exception:  # noqa: BLE001 - a faulty specimen may raise anything
        return True
    for name, expected in call.expected.items():
        array = returned[name]
        if array.shape != expected.value.shape or not expected.met(array):
            return True
    return False


@np.errstate(all="ignore")
def answered(specimen: Specimen, vector: Vector, call: Call) -> dict[str, Array]:
    """Return the arrays that a new layer of a specimen returns for a call.

    The layer is built from the contents of the vector alone, as a reader of the vectors builds it.
    """
    tensors = {name: private_copy(array) for name, array in call.tensors.items()}
    x, dy = tensors.pop("x"), tensors.pop("dy", None)
    if call.batches is not None:
        tensors["num_batches_tracked"] = np.array(call.batches[0])
    config = replace(vector.config, eps=call.eps, momentum=call.momentum)
    layer: Any = specimen.layer(config, State(**tensors))
    layer.train(call.training)
    if dy is None:
        return {"output": layer.forward(x), **layer.state().tensors()}
    wrt = tuple(name.removeprefix("grad_") for name in call.expected)
    _, record = layer.record(x, wrt)
    gradients = layer.backward(record, dy)
    return {f"grad_{name}": np.asarray(getattr(gradients, name)) for name in wrt}


def main() -> None:
    """Print how many faults are caught, which ones are missed, and which sound ones are flagged."""
    drawn = list(vectors(claims_of((DTYPE,), "welford")))
    print(f"{len(drawn)} vectors, {sum(len(vector.calls) for vector in drawn)} calls")
    dialect = claims_of((DTYPE,), "welford").dialect
    judged = []
    for specimen in SPECIMENS.values():
        claims = specimen.capabilities
        if DTYPE in claims.dtypes and claims.dialect == dialect:
            judged.append(specimen)
    verdicts = {specimen: caught(specimen, drawn) for specimen in judged}
    faulty = [specimen for specimen in judged if not specimen.sound]
    missed = [specimen.name for specimen in faulty if not verdicts[specimen]]
    print(f"faults caught: {len(faulty) - len(missed)} of {len(faulty)}")
    print(f"faults missed: {', '.join(missed) or 'none'}")
    flagged = [specimen for specimen in judged if specimen.sound and verdicts[specimen]]
    for specimen in flagged:
        claims = specimen.capabilities
        print(
            f"flagged though sound: {specimen.name}"
            f" (grade {claims.grade}, subnormals {claims.subnormals})"
        )


if __name__ == "__main__":
    main()
