"""Known failures of PaddlePaddle's BatchNorm2D: what was found, why it fails, and where. Needs no PaddlePaddle."""

from __future__ import annotations

from bn_spec.backend.adapters.passes import forwards
from bn_spec.backend.known_failure import KnownFailure
from bn_spec.case.dtypes import Array
from bn_spec.case.script import Case
from bn_spec.case.steps import Forward

_KERNEL = "paddle/phi/kernels/cpu/batch_norm_kernel.cc"
_BACKWARD = "paddle/phi/kernels/cpu/batch_norm_grad_kernel.cc"
_MEASURED = "measured on paddlepaddle 3.3.1"


def _trained(case: Case) -> list[Array]:
    """Return the inputs of the training forwards of a case."""
    return [forward.x for forward in forwards(case) if forward.training and forward.x.ndim == 4]


def _asks_for_one(wrt: tuple[str, ...]) -> bool:
    return ("weight" in wrt) != ("bias" in wrt)


def _recorded(case: Case) -> list[Forward]:
    """Return the forwards of a case of which gradients are asked."""
    return [step for step in case.steps if isinstance(step, Forward) and step.wrt]


CPU = (
    KnownFailure(
        "*",
        "*",
        "a training forward of a single value per channel is skipped: the output is x, neither weight nor bias is"
        " applied, their gradients are zero, and running statistics stay as they are (the branch of"
        f" N * sample_size == 1 in {_KERNEL}; PaddlePaddle/Paddle#11445; {_MEASURED})",
        where=lambda case: any(x.size == x.shape[1] for x in _trained(case)),
    ),
    KnownFailure(
        "GRD-*",
        "grad*",
        "if only one of weight and bias requires a gradient it gets none, in silence (the branches of d_scale &&"
        f" d_bias in {_BACKWARD}; of the kind of PaddlePaddle/Paddle#47634; {_MEASURED})",
        where=lambda case: any(_asks_for_one(step.wrt) for step in _recorded(case)),
    ),
    KnownFailure(
        "GRD-27",
        "*",
        "the backward of an empty batch raises where its input requires no gradient, for it allocates that gradient"
        f" all the same ({_MEASURED})",
        where=lambda case: any(
            not step.x.size and "input" not in step.wrt for step in _recorded(case)
        ),
    ),
    *(
        KnownFailure(
            requirement,
            "*",
            "without weight and bias, a batch of other channels is taken in training, where the kernel compares its"
            f" channels with no other tensor ({_KERNEL}; {_MEASURED})",
            where=lambda case: (
                not case.config.affine
                and any(x.shape[1] != case.config.num_features for x in _trained(case))
            ),
        )
        for requirement in ("ERR-03", "ERR-04", "ERR-08")
    ),
    KnownFailure(
        "ERR-07",
        "*",
        "paddle.grad compares the shapes of grad_outputs and outputs nowhere, and the kernel reads dy as if it had"
        f" the shape of the output, beyond its end if it is smaller ({_MEASURED})",
    ),
)
"""On the CPU."""
