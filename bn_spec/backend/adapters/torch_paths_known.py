"""Known failures of PyTorch's other paths to BatchNorm2d: what was found, why, and on which cases.

Needs no PyTorch.
"""

from __future__ import annotations

from bn_spec.backend.adapters import torch_known as known
from bn_spec.backend.adapters.passes import backwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.script import Case


def _has_eval_backward(case: Case) -> bool:
    """Whether a backward belongs to a forward that running statistics normalised."""
    return case.config.track_running_stats and any(
        not forward.training for forward, _ in backwards(case)
    )


_NO_EVAL_BACKWARD = KnownFailure(
    "*",
    "error",
    "mkldnn_batch_norm_backward refuses the backward of an eval forward: 'currently mkldnn only"
    " support train model' (measured on torch 2.13.0)",
    where=_has_eval_backward,
)

# A discrepancy that several known failures cover counts for the first of them. This one concerns a
# single requirement, so a run expects to see it.
_FIRST = known.RUNNING_STATISTICS_NOT_SAVED

EAGER = (
    _FIRST,
    *(failure for failure in known.CPU if failure not in (*known.COUNTS_REFUSED, _FIRST)),
)
"""Known failures of the eager kernels, called by a program instead of the module.

The program has no module that counts refused batches, or its refusals are not judged.
"""

FORWARD = (known.LOADS_IN_PART, known.INVERSE_STD_OVERFLOWS)
"""Known failures of the eager kernels without gradients."""

ONEDNN = (known.LOADS_IN_PART, _NO_EVAL_BACKWARD)
"""Known failures of oneDNN's kernels."""

DECOMPOSED = known.SAVED_IN_HALF
"""Known failures of the decomposition."""
