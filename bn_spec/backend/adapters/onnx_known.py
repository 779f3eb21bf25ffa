"""Known failures of onnx's ReferenceEvaluator: what was found, why, and on which cases.

Needs no onnx.
"""

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
"""Running statistics, each by the requirement about it alone.

A known failure of a single requirement fails the run once the requirement holds.
"""


def _takes_batch_statistics(case: Case) -> bool:
    """Whether the statistics of a batch normalise a forward of a case."""
    return any(forward.batch_statistics for forward in forwards(case))


def _rounds_complement(case: Case) -> bool:
    """Whether 1 − m is rounded in float32, for a momentum m that a case hands to the operator.

    The operator's momentum weighs the old value: it is 1 − the momentum of the case, in float32.
    """
    momenta = [
        case.config.momentum,
        *(s.value for s in case.steps if isinstance(s, Set) and s.name == "momentum"),
    ]
    attributes = (np.float32(1 - momentum) for momentum in momenta if momentum is not None)
    return any(float(1 - m) != 1 - float(m) for m in attributes)


def _failures(
    reason: str, *observables: str, first: dict[str, str], **scope: Any
) -> tuple[KnownFailure, ...]:
    """Return the failures with one reason.

    Args:
        reason: why they fail.
        observables: observables that fail for every requirement.
        first: observables by the requirement about each. Each also fails for every requirement.
        scope: dtypes and cases.

    """
    everywhere = (("*", observable) for observable in (*first.values(), *observables))
    return tuple(KnownFailure(*judged, reason, **scope) for judged in (*first.items(), *everywhere))


_COMPLEMENT_IN_FLOAT32 = _failures(
    "attributes are NumPy scalars of float32 (onnx/reference/op_run.py), so that 1 − momentum is"
    " rounded to float32: in float64 the weights of the old and the new value do not add up to 1"
    " (measured on onnx 1.23.2)",
    first=RUNNING,
    dtypes=("float64",),
    where=_rounds_complement,
)

_RUNNING_STATISTICS_IN_HALF = _failures(
    "_batchnorm_training_mode (onnx/reference/ops/op_batch_normalization.py) casts running_mean and"
    " running_var to the dtype of X; the operator gives them the dtype of input_mean (measured on"
    " onnx 1.23.2)",
    first={"DTY-01": "state_form", **RUNNING},
    dtypes=MIXED,
    where=_takes_batch_statistics,
)

_REDUCES_IN_HALF = (
    "_batchnorm_training_mode (onnx/reference/ops/op_batch_normalization.py) takes x.mean() and"
    " x.var() in the dtype of X, where the operator's text demands float for float16. The mean is"
    " rounded to half precision, and so are the deviations from it, their squares and partial sums,"
    " which overflow in float16. In bfloat16, which the text does not mention, each addition is"
    " rounded too: a mean of a thousand ones is 0.26 (measured on onnx 1.23.2)"
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
"""Known failures of the evaluator written in Python."""
