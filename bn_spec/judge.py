"""Observation against expectation: which observables disagree, and how much of each error budget was used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from types import MappingProxyType
from typing import TypeAlias, TypeGuard

import numpy as np

from .backend import DOUBLE_GRADIENTS, GRADIENTS
from .bias import FALSE_ALARM, bias
from .bounded import Bounded, Demand
from .bounds import Accuracy
from .case import Backward, Case, DoubleBackward, Forward, Step
from .config import STATE_FIELDS, Config, State, initial_state
from .dtypes import Array, format_named, is_floating
from .errors import ConfigError, allowed
from .expectation import Context, Expectation, expect
from .memory import interchangeable, same_bits, take_apart
from .play import Answer, Observation, Raised
from .reference import Extended
from .reference import formulas as f

Text: TypeAlias = Callable[[], str]

CONSTRUCTION = -1
"""The step index of what a layer holds when it has just been built."""


@dataclass(frozen=True)
class Discrepancy:
    """One observable of one step that is not as expected; ``factor`` is err / bound where there is a bound."""

    observable: str
    step: int
    expected: str
    got: str
    factor: float = np.inf


@dataclass
class Verdict:
    """What judging one observation gave.

    ``shares`` holds the worst err / bound by observable; ``judged`` and ``outside`` count the elements within and
    outside the domain of the bounds (an exact comparison counts as one).
    """

    discrepancies: list[Discrepancy] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    outside: int = 0

    def bounded(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge ``got`` element by element against a reference value with a bound."""
        share = expected.share(got)
        inside = int(expected.inside.sum())
        self.judged += inside
        self.outside += share.size - inside
        if not share.size:
            return
        worst = np.unravel_index(int(share.argmax()), share.shape)
        factor = float(share[worst])
        self.shares[observable] = max(factor, self.shares.get(observable, 0.0))
        if factor > 1:
            place = f"{observable}[{', '.join(map(str, worst))}]"
            wanted = f"{place} = {_digits(expected.value.hi[worst], got)} ± {expected.bound[worst]:.1e}"
            self.discrepancies.append(Discrepancy(observable, step, wanted, _digits(got[worst], got), factor))

    def numbers(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge which elements are NaN or infinite where the data are finite; all that is left beyond the bounds."""
        self.judged += int((expected.demanded > Demand.NOTHING).sum())
        if (unmet := expected.unmet(got)).any():
            first = tuple(int(i) for i in np.argwhere(unmet)[0])
            kind = "finite" if expected.demanded[first] == Demand.FINITE else "a number"
            wanted = f"{observable}[{', '.join(map(str, first))}] is {kind}, since the input is finite"
            self.discrepancies.append(Discrepancy("numbers", step, wanted, _digits(got[first], got)))

    def biased(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge whether the errors of ``got`` (one channel per row) are as often too large as too small."""
        shares = expected.signed_share(got)
        self.judged += len(shares)
        away = np.sign(expected.value.hi)
        for direction, signs in (
            (("large", "small"), np.ones_like(away)),
            (("far from zero", "close to zero"), away),
        ):
            factor = bias(mean := (shares * signs).mean(axis=1))
            self.shares[observable] = max(abs(factor), self.shares.get(observable, 0.0))
            if abs(factor) > 1:
                many, which = int((mean * factor > 0).sum()), direction[factor < 0]
                self.discrepancies.append(
                    Discrepancy(
                        observable,
                        step,
                        "errors as often of either sign",
                        f"{observable.removesuffix('_bias')} too {which} in {many} of {len(mean)} independent"
                        f" channels (chance for a kernel that rounds to nearest: below {FALSE_ALARM:.0e}; one that"
                        " approximates on purpose does not claim `unbiased`)",
                        abs(factor),
                    )
                )
                return

    def exact(self, observable: str, step: int, agrees: bool, expected: str | Text, got: str | Text) -> None:
        """Judge a comparison that allows no error; texts that cost time are given as functions."""
        self.judged += 1
        if not agrees:
            self.discrepancies.append(Discrepancy(observable, step, _text(expected), _text(got)))


def _text(text: str | Text) -> str:
    return text if isinstance(text, str) else text()


def _digits(value: float, like: Array) -> str:
    return f"{float(value):.{9 if like.dtype.itemsize <= 4 else 17}g}"


@dataclass(frozen=True, eq=False)
class _Step:
    """One answer with its expectation, as the observables see it."""

    config: Config
    index: int
    answer: Answer
    expected: Expectation
    previous: Sequence[_Step]
    claims: Accuracy
    forward: Context | None = None
    """The forward whose gradients the step asks for."""


Observable: TypeAlias = Callable[[Verdict, _Step], None]


def _output(verdict: Verdict, step: _Step) -> None:
    if step.expected.output is None:
        return
    if (got := _well_formed_output(verdict, step, "output", step.expected.output.bound.shape)) is not None:
        verdict.bounded("output", step.index, got, step.expected.output)


def _output_form(verdict: Verdict, step: _Step) -> None:
    if step.expected.output is None or not isinstance(step.answer.step, Forward):
        return
    x = step.answer.step.x
    if (got := _well_formed_output(verdict, step, "output_form", x.shape)) is not None:
        verdict.exact(
            "output_form", step.index, got.dtype == x.dtype, f"an output of dtype {x.dtype}", f"{got.dtype}"
        )


def _well_formed_output(verdict: Verdict, step: _Step, observable: str, shape: tuple[int, ...]) -> Array | None:
    """Return the output if it is an array of ``shape``; otherwise note the discrepancy."""
    got = step.answer.output
    if _well_formed(got, shape):
        return got
    verdict.exact(observable, step.index, False, f"an output of shape {shape}", _form(got))
    return None


def _well_formed(got: object, shape: tuple[int, ...]) -> TypeGuard[Array]:
    """Whether an answer is a floating-point array of a shape."""
    return isinstance(got, np.ndarray) and got.shape == shape and is_floating(got.dtype)


def _form(got: object) -> str:
    return f"shape {got.shape}, dtype {got.dtype}" if isinstance(got, np.ndarray) else str(got)


def _tensor(name: str) -> Observable:
    """Judge a tensor of the state after the step: within its bound where it has one, else bitwise."""

    def judge_tensor(verdict: Verdict, step: _Step) -> None:
        after = step.answer.after
        if not isinstance(after, State):
            verdict.exact(name, step.index, False, f"{name} can be read", str(after))
            return
        got, wanted = getattr(after, name), getattr(step.expected.state, name)
        bounded = getattr(step.expected, name, None)
        if bounded is not None and _well_formed(got, bounded.bound.shape):
            verdict.bounded(name, step.index, got, bounded)
        else:
            _exact_tensor(verdict, name, step.index, wanted, got)

    return judge_tensor


def _exact_tensor(verdict: Verdict, name: str, index: int, wanted: Array | None, got: Array | None) -> None:
    agrees = got is wanted if got is None or wanted is None else same_bits(got, wanted)
    verdict.exact(name, index, agrees, lambda: f"{name} = {_shown(wanted)}", lambda: _shown(got))


def _shown(array: object, before: str = "") -> str:
    if not isinstance(array, np.ndarray):
        return f"{before}{array}"
    text = np.array2string(array, threshold=8, separator=", ", floatmode="unique").replace("\n", "")
    return f"{before}{text} ({array.dtype}, shape {array.shape})"


def _kept(verdict: Verdict, step: _Step) -> None:
    """Running statistics bitwise as before the step, in every channel whose batch statistics are in range.

    A variance that overflows times a momentum of 0 is NaN, in any kernel; and a kernel that flushes subnormal numbers
    does not keep them.
    """
    after = step.answer.after
    for name in ("running_mean", "running_var"):
        bounded, before = getattr(step.expected, name), getattr(step.answer.before, name)
        got = getattr(after, name) if isinstance(after, State) else None
        if bounded is None or before is None:
            continue
        inside = bounded.inside
        if not step.claims.subnormals:
            inside = inside & ~(np.abs(before) < format_named(before.dtype.name).smallest_normal)
        verdict.outside += int((~inside).sum())
        if got is None or got.shape != before.shape:
            _exact_tensor(verdict, name, step.index, before, got)
        elif inside.any():
            _exact_tensor(verdict, name, step.index, before[inside], got[inside])


def _handed(verdict: Verdict, step: _Step) -> None:
    """Tensors that were handed over are bitwise as they were: an input, a dy, and the input that it refers to."""
    for name, (handed, after) in step.answer.handed.items():
        agrees = isinstance(after, np.ndarray) and same_bits(after, handed)
        wanted = partial(_shown, handed, f"{name} stays ")
        verdict.exact("handed", step.index, agrees, wanted, partial(_shown, after))


def _repetition(verdict: Verdict, step: _Step) -> None:
    """Bitwise the output of the step before, where that was the same forward step in eval mode."""
    previous, now = step.previous[-1].answer if step.previous else None, step.answer.step
    before = previous and previous.step
    if previous is None or step.answer.training or not (isinstance(before, Forward) and isinstance(now, Forward)):
        return
    if not interchangeable(before.x, now.x):
        return
    first, second = previous.output, step.answer.output
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        verdict.exact(
            "repetition",
            step.index,
            same_bits(first, second),
            lambda: f"the same output again, {_shown(first)}",
            lambda: _shown(second),
        )
    else:
        verdict.exact("repetition", step.index, False, "two outputs", str(second))


def _running_var_sign(verdict: Verdict, step: _Step) -> None:
    after = step.answer.after
    if not isinstance(after, State) or after.running_var is None:
        return
    agrees = is_floating(after.running_var.dtype) and not (after.running_var < 0).any()
    verdict.exact("running_var_sign", step.index, agrees, "running_var >= 0", lambda: _shown(after.running_var))


def _refusal(verdict: Verdict, step: _Step) -> None:
    refusal, raised = step.expected.refusal, step.answer.output
    if refusal is None:
        return
    agrees = isinstance(raised, Raised) and not set(raised.kinds).isdisjoint(refusal.kinds)
    wanted = f"a {' or '.join(refusal.kinds)}, since {refusal.reason}"
    got = str(raised) if isinstance(raised, Raised) else "an output and no error"
    verdict.exact("refusal", step.index, agrees, wanted, got)


def _output_bias(verdict: Verdict, step: _Step) -> None:
    expected = step.expected.output
    if expected is None:
        return
    if (got := _well_formed_output(verdict, step, "output_bias", expected.bound.shape)) is not None:
        verdict.biased("output_bias", step.index, _rows(got), expected.map(_rows))


def _rows(array: Array) -> Array:
    return array.swapaxes(0, 1).reshape(array.shape[1], -1)


def _numbers(verdict: Verdict, step: _Step) -> None:
    """What is left of the requirements outside the domain of the bounds."""
    after, answer = step.answer.after, step.answer
    asked = [(name, getattr(step.expected, name)) for name in ("output", "running_mean", "running_var")]
    for name, expected in [*asked, *step.expected.gradients.items()]:
        got = answer.output if name == "output" else answer.gradients.get(name, getattr(after, name, None))
        if expected is not None and _well_formed(got, expected.bound.shape):  # others are judged as what they are
            verdict.numbers(name, step.index, got, expected)


def _gradient(name: str) -> Observable:
    """Judge a gradient that was asked: within its bound; or that it is absent where it was not."""

    def judge_gradient(verdict: Verdict, step: _Step) -> None:
        if name not in step.expected.gradients or isinstance(step.answer.output, Raised):
            return
        expected, got = step.expected.gradients[name], step.answer.gradients.get(name)
        if expected is None:
            verdict.exact(name, step.index, got is None, f"no {name}, since it was not asked", lambda: _shown(got))
            return
        shape = expected.bound.shape
        if _well_formed(got, shape):
            verdict.bounded(name, step.index, got, expected)
        else:
            verdict.exact(name, step.index, False, f"a {name} of shape {shape}", _form(got))

    return judge_gradient


def _gradient_form(verdict: Verdict, step: _Step) -> None:
    """Each gradient has the shape and dtype of its tensor."""
    if step.forward is None:
        return
    held = step.forward.before
    tensors = {"grad_input": step.forward.step.x, "grad_weight": held.weight, "grad_bias": held.bias}
    for name, expected in step.expected.gradients.items():
        tensor, got = tensors.get(name), step.answer.gradients.get(name)
        if expected is not None and tensor is not None:
            agrees = isinstance(got, np.ndarray) and (got.shape, got.dtype) == (tensor.shape, tensor.dtype)
            wanted = f"{name} of shape {tensor.shape} and dtype {tensor.dtype}"
            verdict.exact("gradient_form", step.index, agrees, wanted, _form(got))


def _gradient_layout(verdict: Verdict, step: _Step) -> None:
    """The gradient of an input in NCHW or NHWC order is in that order, where axes of length 1 do not matter."""
    got = step.answer.gradients.get("grad_input")
    if step.forward is None or not isinstance(got, np.ndarray) or got.shape != step.forward.step.x.shape:
        return
    x = step.forward.step.x
    if x.strides in {_strides(x, 0, 1, 2, 3), _strides(x, 0, 2, 3, 1)}:
        strides = [
            [stride for stride, n in zip(take_apart(a).strides, a.shape, strict=True) if n > 1] for a in (x, got)
        ]
        wanted, found = (f"grad_input of strides {take_apart(a).strides}" for a in (x, got))
        verdict.exact("gradient_layout", step.index, strides[0] == strides[1], wanted, found)


def _strides(a: Array, *order: int) -> tuple[int, ...]:
    """Return the strides that an array would have with its axes laid out in an order, outermost first."""
    outer_to_inner = [a.shape[axis] for axis in order]
    strides = {axis: prod(outer_to_inner[place + 1 :]) * a.itemsize for place, axis in enumerate(order)}
    return tuple(strides[axis] for axis in range(len(order)))


def _gradient_linearity(verdict: Verdict, step: _Step) -> None:
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
        found = [part for s in three if (part := _well_formed_gradient(s, name))]
        if len(found) == len(three):
            (a, one), (b, other), (both, total) = found
            expected = Bounded(Extended(a) + Extended(b), one.bound + other.bound + total.bound)
            verdict.bounded("gradient_linearity", step.index, both, expected)


def _well_formed_gradient(step: _Step, name: str) -> tuple[Array, Bounded] | None:
    """Return a gradient and what is expected, if it was asked and has the right shape."""
    got, expected = step.answer.gradients.get(name), step.expected.gradients.get(name)
    return (got, expected) if expected is not None and _well_formed(got, expected.bound.shape) else None


def _gradient_sums(verdict: Verdict, step: _Step) -> None:
    """Σ dx = 0 and Σ dx x̂ = n weight s³ eps mean(dy x̂) per channel; the latter because mean(x̂²) = 1 − eps s².

    Each may be off by what the elements may be off.
    """
    forward, backward = step.forward, step.answer.step
    found = _well_formed_gradient(step, "grad_input")
    if not found or forward is None or not forward.batch_statistics or not isinstance(backward, Backward):
        return
    eps, x, dy = step.config.eps, f.by_channel(forward.step.x), f.by_channel(backward.dy)
    mu = f.mean(x)
    var = f.biased_variance(x, mu)
    s = f.inverse_std(var, eps)
    x_hat = f.normalise(x, mu, s)
    left = f.column(forward.before.weight, 1.0, len(x.hi)) * s * s * s * eps * (dy * x_hat).total()
    dx, bound = f.by_channel(found[0]), f.by_channel(found[1].bound).hi
    laws = (dx, bound, Extended(np.zeros_like(left.hi))), (dx * x_hat, bound * np.abs(x_hat.hi), left)
    for terms, allowed_each, exact in laws:
        total = terms.total().hi[:, 0]
        verdict.bounded("gradient_sums", step.index, total, Bounded(exact[:, 0], allowed_each.sum(axis=-1)))


def _statistic_bias(name: str) -> Observable:
    """Judge the bias of a running statistic."""

    def judge_bias(verdict: Verdict, step: _Step) -> None:
        after, expected = step.answer.after, getattr(step.expected, name)
        got = getattr(after, name) if isinstance(after, State) else None
        if expected is None or not _well_formed(got, expected.bound.shape):
            return  # wrong tensors are judged as such
        verdict.biased(f"{name}_bias", step.index, got[:, np.newaxis], expected.map(lambda a: a[:, np.newaxis]))

    return judge_bias


def _mode(verdict: Verdict, step: _Step) -> None:
    left = step.answer.mode
    verdict.exact(
        "floating_point_mode",
        step.index,
        not left,
        "the floating-point mode of the process stays as it was",
        f"after the call the process {' and '.join(left)}",
    )


OBSERVABLES: Mapping[str, Observable] = MappingProxyType(
    {
        "output": _output,
        "output_form": _output_form,
        "handed": _handed,
        "refusal": _refusal,
        "repetition": _repetition,
        "running_var_sign": _running_var_sign,
        "running_statistics_kept": _kept,
        "floating_point_mode": _mode,
        "numbers": _numbers,
        "output_bias": _output_bias,
        "running_mean_bias": _statistic_bias("running_mean"),
        "running_var_bias": _statistic_bias("running_var"),
        "gradient_form": _gradient_form,
        "gradient_layout": _gradient_layout,
        "gradient_linearity": _gradient_linearity,
        "gradient_sums": _gradient_sums,
        **{name: _tensor(name) for name in STATE_FIELDS},
        **{name: _gradient(name) for name in (*GRADIENTS, *DOUBLE_GRADIENTS)},
    }
)
"""What can be judged of a step, by name."""


@np.errstate(all="ignore")  # NaN in an answer is judged, not announced
def judge(
    case: Case,
    observation: Observation,
    observables: Iterable[str],
    claims: Accuracy,
    *,
    kind: type[Step] | None = None,
) -> Verdict:
    """Judge the named observables of every step of an observation, or of those of one kind.

    Raises:
        ConfigError: an observable is not one of :data:`OBSERVABLES`.

    """
    judges = [_observable_named(name) for name in observables]
    verdict = Verdict()
    if not isinstance(observation.initial, State):
        verdict.exact("construction", CONSTRUCTION, False, "a layer", str(observation.initial))
    judged: list[_Step] = []
    forwards: list[Context] = []
    for index, answer in enumerate(observation.answers):
        if isinstance(answer.step, Backward | DoubleBackward) and forwards[answer.step.of].refused:
            break  # there is nothing that it could be the gradient of
        if sentence := _misshapen(case.config, answer.before):
            verdict.exact("state", index - 1, False, "a state that fits the config", sentence)
            break
        expected = expect(case.config, answer.before, answer.training, answer.step, claims, forwards)
        forward = forwards[answer.step.of] if isinstance(answer.step, Backward | DoubleBackward) else None
        step = _Step(case.config, index, answer, expected, judged, claims, forward)
        if isinstance(answer.output, Raised) and expected.refusal is None:
            verdict.exact("error", index, False, "no error", str(answer.output))
            break
        for judge_observable in judges if kind is None or isinstance(answer.step, kind) else ():
            judge_observable(verdict, step)
        judged.append(step)
        if isinstance(answer.step, Forward):
            refused = expected.refusal is not None
            forwards.append(Context(answer.before, answer.training, answer.step, refused))
    return verdict


def judge_construction(case: Case, observation: Observation, tensors: Iterable[str]) -> Verdict:
    """Judge the named tensors of a layer that has just been built, bitwise."""
    verdict = Verdict()
    wanted = case.state or initial_state(case.config)
    for name in tensors:
        if isinstance(observation.initial, State):
            got = getattr(observation.initial, name)
            _exact_tensor(verdict, name, CONSTRUCTION, getattr(wanted, name), got)
        else:
            verdict.exact(name, CONSTRUCTION, False, "a layer", str(observation.initial))
    return verdict


def _misshapen(config: Config, state: State) -> str | None:
    """Return a sentence about the first tensor that no layer of this config can hold, or None."""
    shapes = initial_state(config)
    for name, wanted in shapes.items()[:4]:
        got = getattr(state, name)
        if got is None or wanted is None:
            if got is not wanted:
                return f"{name} is {'None' if got is None else 'present'}"
        elif got.shape != wanted.shape or not is_floating(got.dtype):
            return f"{name} has shape {got.shape} and dtype {got.dtype}"
    counter = state.num_batches_tracked
    if counter is not None and (counter.size != 1 or counter.dtype.kind not in "iuf"):
        return f"num_batches_tracked has shape {counter.shape} and dtype {counter.dtype}"
    return None


def _observable_named(name: str) -> Observable:
    try:
        return OBSERVABLES[name]
    except KeyError:
        raise ConfigError(allowed("observable", name, OBSERVABLES)) from None
