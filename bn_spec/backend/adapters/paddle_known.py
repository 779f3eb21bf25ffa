"""Known failures of PaddlePaddle's BatchNorm2D: what was found, why, and on which cases.

Needs no PaddlePaddle.
"""

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
    """Return the inputs (N, C, H, W) of the training forwards of a case."""
    return [forward.x for forward in forwards(case) if forward.training and forward.x.ndim == 4]


def _recorded(case: Case) -> list[Forward]:
    """Return the forwards of a case that record gradients."""
    return [step for step in case.steps if isinstance(step, Forward) and step.wrt]


def _trains_single_values(case: Case) -> bool:
    return any(x.size == x.shape[1] for x in _trained(case))


def _trains_other_channels(case: Case) -> bool:
    """Whether a layer without weight and bias trains on a batch of another number of channels."""
    channels = case.config.num_features
    return not case.config.affine and any(x.shape[1] != channels for x in _trained(case))


def _asks_for_weight_or_bias_alone(case: Case) -> bool:
    return any(("weight" in step.wrt) != ("bias" in step.wrt) for step in _recorded(case))


def _omits_the_gradient_of_an_empty_input(case: Case) -> bool:
    return any(not step.x.size and "input" not in step.wrt for step in _recorded(case))


CPU = (
    KnownFailure(
        "*",
        "*",
        "a training forward of a single value per channel does nothing: the output is x without"
        " weight and bias, the gradients of weight and bias are zero, and running statistics keep"
        f" their values (the branch of N * sample_size == 1 in {_KERNEL};"
        f" PaddlePaddle/Paddle#11445; {_MEASURED})",
        where=_trains_single_values,
    ),
    KnownFailure(
        "GRD-*",
        "grad*",
        "if only one of weight and bias requires a gradient, it gets none, without an error (the"
        f" branches of d_scale && d_bias in {_BACKWARD}; similar to PaddlePaddle/Paddle#47634;"
        f" {_MEASURED})",
        where=_asks_for_weight_or_bias_alone,
    ),
    KnownFailure(
        "GRD-27",
        "*",
        "the backward of an empty batch raises where its input requires no gradient, since it"
        f" allocates that gradient anyway ({_MEASURED})",
        where=_omits_the_gradient_of_an_empty_input,
    ),
    *(
        KnownFailure(
            requirement,
            "*",
            "a layer without weight and bias accepts a batch of another number of channels in"
            " training, where the kernel compares the channels with those of no other tensor"
            f" ({_KERNEL}; {_MEASURED})",
            where=_trains_other_channels,
        )
        for requirement in ("ERR-03", "ERR-04", "ERR-08")
    ),
    KnownFailure(
        "ERR-07",
        "*",
        "paddle.grad does not compare the shapes of grad_outputs and outputs. The kernel reads dy"
        " as if it had the shape of the output; where dy is smaller, the kernel reads beyond its"
        f" end ({_MEASURED})",
    ),
)
"""Known failures on the CPU."""
