"""Known failures of PyTorch's other paths to BatchNorm2d: what was found, why it fails, on which cases."""

from __future__ import annotations

from bn_spec.backend.adapters import torch_known as known
from bn_spec.backend.adapters.passes import backwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.script import Case


def _has_eval_backward(case: Case) -> bool:
    """Whether there is a backward of a forward that running statistics normalised."""
    return case.config.track_running_stats and any(not of.training for of, _ in backwards(case))


_NO_EVAL_BACKWARD = KnownFailure(
    "*",
    "error",
    "mkldnn_batch_norm_backward refuses the backward of an eval forward: 'currently mkldnn only support train model'"
    " (measured on torch 2.13.0)",
    where=_has_eval_backward,
)

_FIRST = (
    known.RUNNING_STATISTICS_NOT_SAVED
)  # what several explain is put down to the first, and this must be seen
EAGER = (
    _FIRST,
    *(failure for failure in known.CPU if failure not in (*known.COUNTS_REFUSED, _FIRST)),
)
"""Of the eager kernels, called by a program that has no module to count what it refuses, or is not asked."""

FORWARD = (known.LOADS_IN_PART, known.INVERSE_STD_OVERFLOWS)
"""Those without gradients."""

ONEDNN = (known.LOADS_IN_PART, _NO_EVAL_BACKWARD)
"""Of oneDNN's kernels."""

DECOMPOSED = known.SAVED_IN_HALF
"""Of the decomposition."""
