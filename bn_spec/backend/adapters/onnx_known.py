"""Known failures of onnx's ReferenceEvaluator: what was found, why it fails, and on which cases. Needs no onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

from bn_spec.backend.adapters.passes import forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.script import Case
from bn_spec.case.steps import Set

MIXED = ("mixed_float16", "mixed_bfloat16")
HALF = ("float16", "bfloat16")

RUNNING = {"RUN-01": "running_mean", "RUN-02": "running_var"}
"""Running statistics, by the requirement that is about each: once it holds, the failure is no longer known."""


def _takes_batch_statistics(case: Case) -> bool:
    """Whether a forward of a case is normalised by the statistics of its batch."""
    return any(forward.batch_statistics for forward in forwards(case))


def _rounds_complement(case: Case) -> bool:
    """Whether float32 has momentum, the weight of the old value, but not 1 − momentum, for any in a case."""
    momenta = [
        case.config.momentum,
        *(s.value for s in case.steps if isinstance(s, Set) and s.name == "momentum"),
    ]
    held = (np.float32(1 - momentum) for momentum in momenta if momentum is not None)
    return any(float(1 - m) != 1 - float(m) for m in held)


def _failures(
    reason: str, *observables: str, first: dict[str, str], **scope: Any
) -> tuple[KnownFailure, ...]:
    """Return a failure of ``first``, observables by requirement, and of observables of whatever requirement."""
    everywhere = (("*", observable) for observable in (*first.values(), *observables))
    return tuple(KnownFailure(*judged, reason, **scope) for judged in (*first.items(), *everywhere))


_COMPLEMENT_IN_FLOAT32 = _failures(
    "attributes are NumPy scalars of float32 (onnx/reference/op_run.py), so that 1 − momentum is rounded to float32:"
    " in float64 the weights of the old and the new value do not add up to 1 (measured on onnx 1.23.2)",
    first=RUNNING,
    dtypes=("float64",),
    where=_rounds_complement,
)

_RUNNING_STATISTICS_IN_HALF = _failures(
    "_batchnorm_training_mode (onnx/reference/ops/op_batch_normalization.py) casts running_mean and running_var to"
    " the dtype of X, where the operator gives them that of input_mean (measured on onnx 1.23.2)",
    first={"DTY-01": "state_form", **RUNNING},
    dtypes=MIXED,
    where=_takes_batch_statistics,
)

_REDUCES_IN_HALF = (
    "_batchnorm_training_mode (onnx/reference/ops/op_batch_normalization.py) takes x.mean() and x.var() in the dtype"
    " of X, where the operator's text has float do it for float16: the mean is rounded to half precision, as are the"
    " deviations from it, their squares and partial sums, which overflow in float16; in bfloat16, of which the text"
    " says nothing, so is each addition of values, and a mean of a thousand ones is 0.26 (measured on onnx 1.23.2)"
)

_STATISTICS_IN_HALF = (
    *_failures(
        _REDUCES_IN_HALF,
        "numbers",
        *LAWS,
        *OTHER_LAWS,
        first={"TRN-01": "output"},
        dtypes=(*MIXED, *HALF),
        where=_takes_batch_statistics,
    ),
    *_failures(_REDUCES_IN_HALF, first=RUNNING, dtypes=HALF, where=_takes_batch_statistics),
)

REFERENCE = (*_COMPLEMENT_IN_FLOAT32, *_RUNNING_STATISTICS_IN_HALF, *_STATISTICS_IN_HALF)
"""Of the evaluator in Python."""
