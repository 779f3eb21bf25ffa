"""Gradients, and other results by name."""

from __future__ import annotations

import numpy as np

from bn_spec.case.steps import GRADIENTS, Backward, Fold
from bn_spec.judge.observables.judged_step import Judge, JudgedStep, form, shown, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f
from bn_spec.play.observation import Raised


def result(name: str) -> Judge:
    """Judge a result that was asked, as a gradient is: within its bound; or that it is absent where it was not."""

    def judge_result(verdict: Verdict, step: JudgedStep) -> None:
        if name not in step.expected.results or isinstance(step.answer.error, Raised):
            return
        expected, got = step.expected.results[name], step.answer.results.get(name)
        if expected is None:
            verdict.exact(
                name,
                step.index,
                got is None,
                f"no {name}, since it was not asked",
                lambda: shown(got),
            )
            return
        shape = expected.bound.shape
        if well_formed(got, shape):
            verdict.bounded(name, step.index, got, expected)
        else:
            verdict.exact(name, step.index, False, f"a {name} of shape {shape}", form(got))

    return judge_result


def gradient_form(verdict: Verdict, step: JudgedStep) -> None:
    """Each gradient, of first or second order, has the shape and dtype of its tensor; that of dy those of x."""
    if step.forward is None:
        return
    x, held = step.forward.step.x, step.forward.before
    tensors = {"grad_input": x, "grad_weight": held.weight, "grad_bias": held.bias}
    tensors |= {"double_dy": x, "double_input": x, "double_weight": held.weight}
    for name, expected in step.expected.results.items():
        tensor, got = tensors.get(name), step.answer.results.get(name)
        if expected is not None and tensor is not None:
            agrees = isinstance(got, np.ndarray) and (got.shape, got.dtype) == (
                tensor.shape,
                tensor.dtype,
            )
            wanted = f"{name} of shape {tensor.shape} and dtype {tensor.dtype}"
            verdict.exact("gradient_form", step.index, agrees, wanted, form(got))


def folded_form(verdict: Verdict, step: JudgedStep) -> None:
    """What a layer is folded into has the dtype of the convolution it was given; shapes are judged with values."""
    fold = step.answer.step
    if not isinstance(fold, Fold):
        return
    for name, got in step.answer.results.items():
        agrees = isinstance(got, np.ndarray) and got.dtype == fold.weight.dtype
        verdict.exact(
            "folded_form", step.index, agrees, f"{name} of dtype {fold.weight.dtype}", form(got)
        )


def gradient_linearity(verdict: Verdict, step: JudgedStep) -> None:
    """Where this and the last two steps ask one forward, the third dy the sum of the others, so are its gradients.

    The values of the reference play no part, only the bounds of all three.
    """
    three = [*step.previous[-2:], step]
    asked = [s.answer.step for s in three if isinstance(s.answer.step, Backward)]
    if len(asked) < 3 or any(s.forward is not step.forward for s in three):
        return
    first, second, third = (backward.dy.astype(np.float64) for backward in asked)
    if not np.array_equal(first + second, third):
        return
    for name in GRADIENTS:
        found = [part for s in three if (part := s.gradient(name))]
        if len(found) == len(three):
            (a, one), (b, other), (both, total) = found
            expected = Bounded(Extended(a) + Extended(b), one.bound + other.bound + total.bound)
            verdict.bounded("gradient_linearity", step.index, both, expected)


def gradient_sums(verdict: Verdict, step: JudgedStep) -> None:
    """Σ dx = 0 and Σ dx x̂ = n weight s³ eps mean(dy x̂) per channel; the latter because mean(x̂²) = 1 − eps s².

    Each may be off by what the elements may be off.
    """
    forward, backward = step.forward, step.answer.step
    found = step.gradient("grad_input")
    if (
        not found
        or forward is None
        or not forward.batch_statistics
        or not isinstance(backward, Backward)
    ):
        return
    if not backward.dy.size:
        return
    eps, x, dy = forward.config.eps, f.by_channel(forward.step.x), f.by_channel(backward.dy)
    mu = f.mean(x)
    var = f.biased_variance(x, mu)
    s = f.inverse_std(var, eps)
    x_hat = f.normalise(x, mu, s)
    left = f.column(forward.before.weight, 1.0, len(x.hi)) * s * s * s * eps * (dy * x_hat).total()
    dx, bound = f.by_channel(found[0]), f.by_channel(found[1].bound).hi
    laws = (
        (dx, bound, Extended(np.zeros_like(left.hi))),
        (dx * x_hat, bound * np.abs(x_hat.hi), left),
    )
    for terms, allowed_each, exact in laws:
        total = terms.total().hi[:, 0]
        verdict.bounded(
            "gradient_sums", step.index, total, Bounded(exact[:, 0], allowed_each.sum(axis=-1))
        )
