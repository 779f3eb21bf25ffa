"""How many faults of the catalogue the test vectors catch that ``bn-spec vectors export`` writes; in float32."""

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


def caught(specimen: Specimen, drawn: Sequence[Vector]) -> bool:
    """Whether a specimen gives anything else than what is expected on some vector."""
    return any(is_wrong(specimen, vector, call) for vector in drawn for call in vector.calls)


def is_wrong(specimen: Specimen, vector: Vector, call: Call) -> bool:
    """Whether a specimen gives anything else than what is expected of a call, or raises."""
    try:
        got = answered(specimen, vector, call)
    except Exception:  # noqa: BLE001 - a faulty specimen may raise anything
        return True
    return any(
        got[name].shape != e.value.shape or not e.met(got[name])
        for name, e in call.expected.items()
    )


@np.errstate(all="ignore")
def answered(specimen: Specimen, vector: Vector, call: Call) -> dict[str, Array]:
    """Return what a new layer of a specimen gives, as a reader of the vectors would ask it."""
    tensors = {name: private_copy(a) for name, a in call.tensors.items()}
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
    """Print the share of the faults that are caught, the names of the others, and the sound ones that are flagged."""
    drawn = list(vectors(claims_of((DTYPE,), "welford")))
    print(f"{len(drawn)} vectors, {sum(len(vector.calls) for vector in drawn)} calls")
    dialect = claims_of((DTYPE,), "welford").dialect
    asked = [
        s
        for s in SPECIMENS.values()
        if DTYPE in s.capabilities.dtypes and s.capabilities.dialect == dialect
    ]
    verdicts = {specimen: caught(specimen, drawn) for specimen in asked}
    faulty = [specimen for specimen in asked if not specimen.sound]
    missed = [specimen.name for specimen in faulty if not verdicts[specimen]]
    print(f"caught: {len(faulty) - len(missed)} of {len(faulty)} faults; not {', '.join(missed)}")
    flagged = [specimen for specimen in asked if specimen.sound and verdicts[specimen]]
    for specimen in flagged:
        claims = specimen.capabilities
        print(
            f"flagged though sound: {specimen.name} (grade {claims.grade}, subnormals {claims.subnormals})"
        )


if __name__ == "__main__":
    main()
