"""Observables of gradients and of other results by name."""

from __future__ import annotations

from functools import partial

import numpy as np

from bn_spec.case.steps import GRADIENTS, Backward, Fold
from bn_spec.judge.observables.judged_step import Judge, JudgedStep, form, shown, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f
from bn_spec.play.observation import Raised


def result(name: str) -> Judge:
    """Return a judge of a result, such as a gradient.

    The result must be within its bound, or absent if the step does not ask for it.
    """

    def judge_result(verdict: Verdict, step: JudgedStep) -> None:
        if name not in step.expected.results or isinstance(step.answer.error, Raised):
            return
        expected, got = step.expected.results[name], step.answer.results.get(name)
        if expected is None:
            wanted = f"no {name}, since it was not asked for"
            verdict.exact(name, step.index, got is None, wanted, partial(shown, got))
            return
        shape = expected.bound.shape
        if well_formed(got, shape):
            verdict.bounded(name, step.index, got, expected)
        else:
            verdict.exact(name, step.index, False, f"a {name} of shape {shape}", form(got))

    return judge_result


def gradient_form(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether each gradient has the shape and the dtype of its tensor.

    The gradient with respect to dy, of second order, has those of the input.
    """
    if step.forward is None:
        return
    x, state = step.forward.step.x, step.forward.before
    tensors = {"grad_input": x, "grad_weight": state.weight, "grad_bias": state.bias}
    tensors |= {"double_dy": x, "double_input": x, "double_weight": state.weight}
    for name, expected in step.expected.results.items():
        tensor, got = tensors.get(name), step.answer.results.get(name)
        if expected is not None and tensor is not None:
            agrees = False
            if isinstance(got, np.ndarray):
                agrees = (got.shape, got.dtype) == (tensor.shape, tensor.dtype)
            wanted = f"{name} of shape {tensor.shape} and dtype {tensor.dtype}"
            verdict.exact("gradient_form", step.index, agrees, wanted, form(got))


def folded_form(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether a folded convolution has the dtype of the convolution before the layer.

    The observables of its weight and bias judge their shapes.
    """
    fold = step.answer.step
    if not isinstance(fold, Fold):
        return
    dtype = fold.weight.dtype
    for name, got in step.answer.results.items():
        agrees = isinstance(got, np.ndarray) and got.dtype == dtype
        verdict.exact("folded_form", step.index, agrees, f"{name} of dtype {dtype}", form(got))


def gradient_linearity(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether gradients are linear in dy.

    This applies if this step and the two before it are backwards of the same forward, and the third
    dy is the sum of the first two. Its gradients must then be the sums of theirs. The comparison
    uses the bounds of all three steps, and no value of the reference.
    """
    three = [*step.previous[-2:], step]
    asked = [s.answer.step for s in three if isinstance(s.answer.step, Backward)]
    if len(asked) < 3 or any(s.forward is not step.forward for s in three):
        return
    first, second, third = (backward.dy.astype(np.float64) for backward in asked)
    if not np.array_equal(first + second, third):
        return
    for name in GRADIENTS:
        found = [s.gradient(name) for s in three]
        answered = [each for each in found if each is not None]
        if len(answered) == len(three):
            (a, one), (b, other), (both, total) = answered
            expected = Bounded(Extended(a) + Extended(b), one.bound + other.bound + total.bound)
            verdict.bounded("gradient_linearity", step.index, both, expected)


def gradient_sums(verdict: Verdict, step: JudgedStep) -> None:
    """Judge whether Σ dx = 0 and Σ dx x̂ = n weight s³ eps mean(dy x̂) in each channel.

    The second sum follows from mean(x̂²) = 1 − eps s². The bound of a sum is the sum of the bounds
    of its terms.
    """
    forward, backward = step.forward, step.answer.step
    found = step.gradient("grad_input")
    if found is None or forward is None or not forward.batch_statistics:
        return
    if not isinstance(backward, Backward) or not backward.dy.size:
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
    for terms, room, exact in laws:
        total = terms.total().hi[:, 0]
        expected = Bounded(exact[:, 0], room.sum(axis=-1))
        verdict.bounded("gradient_sums", step.index, total, expected)
