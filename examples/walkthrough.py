"""BatchNorm2d from the sigmoid to the running statistics, and five mistakes that go unnoticed.

The walkthrough is a program: it computes every number that it prints, and asserts every claim. It
follows a tutorial that tests BatchNorm2d by hand, and shows what the tutorial's checks miss.

Usage: ``python examples/walkthrough.py``, with bn-spec and PyTorch installed.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import find

import bn_spec
from bn_spec import Backend, Capabilities, Case, Config, State, check, kernel_backend
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.steps import Forward
from bn_spec.judge.finding import describe
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import Bounded, expect
from bn_spec.strategies import cases, shapes
from bn_spec.suite.chapters import requirement_named
from bn_spec.suite.profiles import PROFILES

Array: TypeAlias = npt.NDArray[Any]
Answer: TypeAlias = tuple[Array, Array | None, Array | None]
Shares: TypeAlias = dict[str, float]
"""Worst err / bound over all elements, by tensor."""

CHANNELS = 16
CONFIG = Config(CHANNELS)
TWO_PASS = Accuracy("two-pass")
BATCH = (0, 2, 3)
"""The axes of (N, C, H, W) over which the statistics of a channel are taken."""


def uniform(shape: tuple[int, int, int, int], seed: int = 0) -> Array:
    """Return float32 data, uniform on [0, 1)."""
    return np.random.default_rng(seed).random(shape, np.float32)


TUTORIAL = Case(CONFIG, initial_state(CONFIG), (Forward(uniform((10, CHANNELS, 10, 10))),))
"""One training step on a new layer with default arguments: the only case of the tutorial."""

X = next(TUTORIAL.forwards())


# By hand ------------------------------------------------------------------------------------------


def column(values: Array) -> Array:
    """Return per-channel values (C,) in a shape that broadcasts against (N, C, H, W)."""
    return values[:, np.newaxis, np.newaxis]


def normalised(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """Return (x − mean) / √(var + eps) · weight + bias."""
    x_hat = (x - column(mean)) / column(np.sqrt(var + eps))
    return x_hat if weight is None or bias is None else x_hat * column(weight) + column(bias)


def moved(running: Array | None, batch: Array, momentum: float) -> Array | None:
    """Return (1 − momentum) · running + momentum · batch."""
    return None if running is None else (1 - momentum) * running + momentum * batch


def by_hand(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
    eps: float,
) -> Answer:
    """Train on one batch: biased variance for the output, unbiased variance for running_var."""
    mean, biased, unbiased = x.mean(BATCH), x.var(BATCH), x.var(BATCH, ddof=1)
    y = normalised(x, mean, biased, weight, bias, eps)
    return y, moved(running_mean, mean, momentum), moved(running_var, unbiased, momentum)


def first_step(kernel: Callable[..., Answer]) -> Answer:
    """Return the results of a kernel for the tutorial's batch and the tensors of a new layer."""
    tensors = dict(initial_state(CONFIG).items())
    del tensors["num_batches_tracked"]
    return kernel(X, **tensors, momentum=CONFIG.momentum, eps=CONFIG.eps)


# 1. Why -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """Slopes of the sigmoid.

    Attributes:
        steepest: The largest slope.
        spread: Mean slope at widely spread values.
        normalised: Mean slope at the same values after BatchNorm2d.

    """

    steepest: float
    spread: float
    normalised: float


def sigmoid_slope(x: Array) -> Array:
    """Return σ'(x) = σ(x) (1 − σ(x))."""
    sigma = 1 / (1 + np.exp(-x.astype(np.float64)))
    slope: Array = sigma * (1 - sigma)
    return slope


def why() -> Slopes:
    """Show that widely spread values have no slope left, and that normalising gives it back."""
    grid = np.linspace(-20, 20, 4001)
    spread = np.random.default_rng(0).normal(10, 20, size=(10, 1, 10, 10)).astype(np.float32)
    layer = bn_spec.BatchNorm2d(1)
    slopes = Slopes(
        steepest=float(sigmoid_slope(grid).max()),
        spread=float(sigmoid_slope(spread).mean()),
        normalised=float(sigmoid_slope(layer(spread)).mean()),
    )
    say(
        f"The derivative of the sigmoid is at most {slopes.steepest:g}, at 0, and vanishes away"
        f" from it. For activations with mean {spread.mean():.1f} and standard deviation"
        f" {spread.std():.1f}, the average slope is {slopes.spread:.3f}. After BatchNorm2d it is"
        f" {slopes.normalised:.3f}, so gradients get through."
    )
    require(slopes.steepest <= 0.25, "the derivative is at most 1/4")
    require(slopes.normalised > 4 * slopes.spread, "normalising brings the slope back")
    return slopes


# 2. Set-up ----------------------------------------------------------------------------------------


def layers() -> dict[str, Any]:
    """Return a new layer of each library, built with default arguments."""
    return {"bn_spec": bn_spec.BatchNorm2d(CHANNELS), "torch": torch.nn.BatchNorm2d(CHANNELS)}


def tensors_of(layer: Any) -> State:
    """Return copies of the layer's five tensors."""
    return State(**{name: numpy(getattr(layer, name)) for name in STATE_FIELDS})


def numpy(tensor: Any) -> Array:
    """Return a NumPy copy of an array of either library."""
    return np.array(tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else tensor)


def call(layer: Any, x: Array) -> Array:
    """Return a layer's output for ``x`` as a NumPy array."""
    return numpy(layer(torch.from_numpy(x) if isinstance(layer, torch.nn.Module) else x))


def set_up() -> dict[str, State]:
    """Build a layer of each library, and show that both have the same five tensors."""
    states = {library: tensors_of(layer) for library, layer in layers().items()}
    say(
        f"The data: uniform on [0, 1), shape {X.shape} — batch, channels, height, width. The layer:"
        f" BatchNorm2d({CHANNELS}), that is eps={CONFIG.eps}, momentum={CONFIG.momentum},"
        f" affine={CONFIG.affine}, track_running_stats={CONFIG.track_running_stats}. A new layer"
        " has five tensors, of which the first two are trainable:"
    )
    for name, tensor in states["bn_spec"].items():
        array = numpy(tensor)
        row(name, f"shape {array.shape}", str(array.dtype), f"all {array.flat[0]}")
    documented = dict(initial_state(CONFIG).items())
    for state in states.values():
        for name, got in state.items():
            same = same_bits(numpy(got), numpy(documented[name]))
            require(same, f"{name} of a new layer is as documented")
    return states


# 3. Training --------------------------------------------------------------------------------------


def training() -> dict[str, Shares]:
    """Train one step by hand and with both libraries; return worst err / bound of each tensor."""
    results = {"by hand": first_step(by_hand)}
    for library, layer in layers().items():
        results[library] = (call(layer, X), numpy(layer.running_mean), numpy(layer.running_var))
    say(
        "In training mode, each channel is normalised by the mean and the *biased* variance of its"
        " batch, while running_var moves towards the *unbiased* variance. An exact reference gives"
        " the value of each element, and a theorem bounds the error that rounding can cause in it."
        " Below is the worst error over all elements, as a share of that bound. A share up to 1 is"
        " rounding; a larger one is another formula."
    )
    shares = {name: training_shares(result) for name, result in results.items()}
    print_shares(shares)
    return shares


def training_bounds() -> dict[str, Bounded]:
    """Return the exact results of the tutorial's training step, with a bound per element."""
    expected = expect(CONFIG, initial_state(CONFIG), True, Forward(X), TWO_PASS)
    bounds = {}
    for name in ("output", "running_mean", "running_var"):
        bounds[name] = getattr(expected, name)
    return bounds


def training_shares(result: Answer) -> Shares:
    """Return the worst err / bound of an output, a running_mean and a running_var."""
    pairs = zip(training_bounds().items(), result, strict=True)
    return {name: worst_share(bounded, numpy(got)) for (name, bounded), got in pairs}


def worst_share(bounded: Bounded, got: Array) -> float:
    """Return the largest err / bound of any element."""
    require(bool(np.isfinite(bounded.bound).all()), "every element has a bound")
    return float(bounded.share(got).max())


def print_shares(shares: dict[str, Shares]) -> None:
    """Print a table of shares, and require each to be at most 1."""
    row("worst err / bound", *next(iter(shares.values())))
    for name, by_tensor in shares.items():
        row(name, *(f"{share:.2g}" for share in by_tensor.values()))
        require(max(by_tensor.values()) <= 1, f"{name} stays within the bound")


# 4. Testing ---------------------------------------------------------------------------------------


def evaluation() -> dict[str, Shares]:
    """Call trained layers on a new batch in eval mode; return the worst err / bound of outputs."""
    x = uniform((3, CHANNELS, 7, 5), seed=1)
    say(
        f"In eval mode, the running statistics normalise the input, here a new batch of shape"
        f" {x.shape}. The hand computation uses the running statistics that the layer reports, and"
        " nothing that the layer computes from this batch."
    )
    shares: dict[str, Shares] = {}
    for library, layer in layers().items():
        call(layer, X)
        layer.eval()
        before = tensors_of(layer)
        output, after = call(layer, x), tensors_of(layer)
        bounded = expect(CONFIG, before, False, Forward(x), TWO_PASS).output
        assert bounded is not None
        hand = eval_by_hand(x, before)
        shares[library] = {
            "layer": worst_share(bounded, output),
            "by hand": worst_share(bounded, hand),
        }
        for (name, old), (_, new) in zip(before.items(), after.items(), strict=True):
            same = same_bits(numpy(old), numpy(new))
            require(same, f"eval mode leaves {name} of {library} unchanged")
    print_shares(shares)
    say("Afterwards, all five tensors of both layers are unchanged, bit for bit.")
    return shares


def eval_by_hand(x: Array, state: State) -> Array:
    """Normalise by the running statistics of a layer."""
    mean, var = numpy(state.running_mean), numpy(state.running_var)
    return normalised(x, mean, var, state.weight, state.bias, CONFIG.eps)


# 5. Slips -----------------------------------------------------------------------------------------
# Each slip is by_hand with one mistake. `others` are the tensors, momentum and eps of the call.


def unbiased(
    x: Array, weight: Array | None, bias: Array | None, eps: float, **others: Any
) -> Answer:
    """Normalise by the unbiased variance, as the tutorial did."""
    _, mean, var = by_hand(x, weight, bias, eps=eps, **others)
    return normalised(x, x.mean(BATCH), x.var(BATCH, ddof=1), weight, bias, eps), mean, var


def unbiased_last_channel(x: Array, **others: Any) -> Answer:
    """Make the same mistake in the last channel alone."""
    y, mean, var = by_hand(x, **others)
    y[:, -1] = unbiased(x, **others)[0][:, -1]
    return y, mean, var


def last_element_forgotten(x: Array, **others: Any) -> Answer:
    """Leave the last element unwritten, like a kernel whose blocks do not cover the data."""
    y, mean, var = by_hand(x, **others)
    y[-1, -1, -1, -1] = 0
    return y, mean, var


def affine_ignored(x: Array, **others: Any) -> Answer:
    """Ignore weight and bias."""
    return by_hand(x, **others | {"weight": None, "bias": None})


def momentum_inverted(x: Array, **others: Any) -> Answer:
    """Weigh the old value by momentum, instead of the new one."""
    return by_hand(x, **others | {"momentum": 1 - others["momentum"]})


def history_ignored(x: Array, **others: Any) -> Answer:
    """Update the running statistics from 0 and 1, instead of their old values."""
    zeros = np.zeros(x.shape[1], x.dtype)
    return by_hand(x, **others | {"running_mean": zeros, "running_var": zeros + 1})


def misspelt(x: Any, **others: Any) -> Answer:
    """Misspell a method."""
    return by_hand(x - x.maen(), **others)


def backend_of(kernel: Callable[..., Answer]) -> Backend:
    """Return a training kernel as a backend."""
    claims = Capabilities(grade="two-pass", inference=False)
    return kernel_backend(kernel.__name__, kernel, capabilities=claims)


@dataclass(frozen=True)
class Caught:
    """A case on which a backend is wrong, and its first discrepancy."""

    case: Case
    discrepancy: Discrepancy


def caught(backend: Backend) -> Caught:
    """Return the smallest case on which a backend is wrong, among drawn cases of tiny shapes."""
    drawn = cases(claims=backend.capabilities, shape=shapes("tiny"))
    settings = PROFILES["ci"].settings()
    case = find(drawn, lambda case: bool(check(case, backend)), settings=settings, random=Random(0))
    return Caught(case, check(case, backend)[0])


def print_caught(requirement: str, found: Caught) -> None:
    """Print the violated requirement, the case, the expected value and the value received."""
    wrong = found.discrepancy
    print_block(f"{requirement}  {requirement_named(requirement).sentence}")
    for number, line in enumerate(describe(found.case)):
        print_block(f"  {'case' if number == 0 else '':<10}{line}")
    print_block(f"  {'expected':<10}{wrong.expected}")
    print_block(f"  {'got':<10}{wrong.got}          ({wrong.factor:.2g} × the bound)")


def wrong_formula() -> tuple[Discrepancy, Caught]:
    """Slip 1: the output is normalised by the unbiased variance. Return what the suite finds."""
    backend = backend_of(unbiased)
    on_tutorial, found = check(TUTORIAL, backend)[0], caught(backend)
    error = mean_absolute_error(first_step(unbiased)[0])
    say(
        f"The tutorial's hand computation divides by the unbiased variance. Its mean absolute error"
        f" of {error:.1e} looks like rounding. On the same data, the suite reports"
        f" {on_tutorial.factor:.2g} times the bound. It also shrinks the failure to a case that you"
        " can work out on paper:"
    )
    print_caught("TRN-01", found)
    require(not check(TUTORIAL, backend_of(by_hand)), "the right formula is accepted")
    for discrepancy in (on_tutorial, found.discrepancy):
        caught_in_output = discrepancy.observable == "output" and discrepancy.factor > 1
        require(caught_in_output, "the wrong formula is caught")
    return on_tutorial, found


@dataclass(frozen=True)
class EvalChecks:
    """Results of two checks of an eval output.

    Attributes:
        cannot_fail: Of the tutorial's check, for a right layer and for one left in training mode.
        can_fail: Of the comparison with the bound, for the same two layers.

    """

    cannot_fail: tuple[float, float]
    can_fail: tuple[float, float]


def check_that_cannot_fail() -> EvalChecks:
    """Slip 2: a result is subtracted from itself."""
    x, layer = uniform((3, CHANNELS, 7, 5), seed=1), layers()["torch"]
    call(layer, X)
    bounded = expect(CONFIG, tensors_of(layer), False, Forward(x), TWO_PASS).output
    assert bounded is not None
    right, wrong = call(layer.eval(), x), call(layer.train(), x)
    verdicts = EvalChecks(
        cannot_fail=(float(np.abs(right - right).mean()), float(np.abs(wrong - wrong).mean())),
        can_fail=(worst_share(bounded, right), worst_share(bounded, wrong)),
    )
    say(
        "The tutorial's check of eval mode subtracts a result from itself. Beside it is a"
        " comparison that can fail:"
    )
    row("", "right layer", "left in training mode")
    row("result − itself", *(f"{value:g}" for value in verdicts.cannot_fail))
    row("worst err / bound", *(f"{value:.2g}" for value in verdicts.can_fail))
    require(verdicts.cannot_fail == (0, 0), "the check prints 0 whatever happens")
    require(
        verdicts.can_fail[0] <= 1 < verdicts.can_fail[1], "the comparison tells right from wrong"
    )
    return verdicts


@dataclass(frozen=True)
class Errors:
    """Two summaries of the same errors: their mean, and the worst err / bound."""

    mean_absolute: float
    worst_share: float


def averaged_away() -> dict[str, Errors]:
    """Slip 3: a mean absolute error over all elements hides a wrong channel and a wrong tail."""
    errors: dict[str, Errors] = {}
    say(
        "A mean over all elements hides a wrong channel and a wrong last element. The worst element"
        " shows them:"
    )
    row("", "mean abs. error", "worst err / bound")
    for kernel in (by_hand, unbiased, unbiased_last_channel, last_element_forgotten):
        y = first_step(kernel)[0]
        error = Errors(mean_absolute_error(y), worst_share(training_bounds()["output"], y))
        errors[kernel.__name__] = error
        row(kernel.__name__, f"{error.mean_absolute:.1e}", f"{error.worst_share:.2g}")
    hidden = errors["unbiased_last_channel"], errors["last_element_forgotten"]
    for each in hidden:
        require(each.mean_absolute < errors["unbiased"].mean_absolute, "the mean hides it")
        require(each.worst_share > 1, "the worst element shows it")
    return errors


def mean_absolute_error(y: Array) -> float:
    """Return the mean absolute error of an output, which the tutorial looks at."""
    bounded = training_bounds()["output"]
    return float((bounded.share(y) * bounded.bound).mean())


@dataclass(frozen=True)
class Friendly:
    """A fault, and a case whose friendly values hide it.

    Attributes:
        kernel: The faulty kernel.
        requirement: Id of the requirement that it violates.
        case: The friendly case.

    """

    kernel: Callable[..., Answer]
    requirement: str
    case: Case


HALVED = Config(CHANNELS, momentum=0.5)

FRIENDLY = (
    Friendly(affine_ignored, "TRN-02", TUTORIAL),
    Friendly(history_ignored, "RUN-01", TUTORIAL),
    Friendly(momentum_inverted, "RUN-01", Case(HALVED, initial_state(HALVED), TUTORIAL.steps)),
)


def hidden_by_friendly_values() -> dict[str, Caught]:
    """Slip 4: default tensors and a single step hide faults. Return the cases that show them."""
    found = {fault.kernel.__name__: caught(backend_of(fault.kernel)) for fault in FRIENDLY}
    say(
        "With weight 1, bias 0 and running statistics 0 and 1, a single step cannot show whether a"
        " kernel uses them. With momentum 0.5, old and new values have the same weight. The suite"
        " draws other values of all of them:"
    )
    for fault in FRIENDLY:
        name, backend = fault.kernel.__name__, backend_of(fault.kernel)
        on_friendly = check(fault.case, backend)
        print(f"\n  {name}: {len(on_friendly)} discrepancies on the friendly case; caught by")
        print_caught(fault.requirement, found[name])
        require(not on_friendly, f"the friendly case hides {name}")
    inverted = check(TUTORIAL, backend_of(momentum_inverted))[0]
    say(
        f"With momentum {CONFIG.momentum}, the tutorial's case shows the last fault:"
        f" {inverted.factor:.2g} times the bound."
    )
    require(inverted.factor > 1, "momentum 0.1 shows an inverted momentum")
    return found


def misspelt_names() -> list[str]:
    """Slip 5: names that do not exist. Return the errors of each library, and then the finding."""
    say(
        "A misspelt name raises an error at once. To the suite, an error inside a layer is a"
        " finding like any other:"
    )
    sentences = []
    for layer in layers().values():
        sentences += attribute_errors(layer, "runing_var")
    finding = check(TUTORIAL, backend_of(misspelt))[0]
    sentences.append(f"expected {finding.expected}; it {finding.got}")
    for sentence in sentences:
        print_block(sentence)
    all_reported = len(sentences) == 3 and finding.observable == "error"
    require(all_reported, "every misspelt name is reported")
    return sentences


def attribute_errors(layer: Any, name: str) -> Iterator[str]:
    """Yield the error of a layer for an attribute that it lacks."""
    try:
        getattr(layer, name)
    except AttributeError as error:
        yield f"{type(error).__name__}: {error}"


# Printing -----------------------------------------------------------------------------------------

WIDTH = 100
"""Width of the text, in characters."""


def require(holds: bool, claim: str) -> None:
    """Raise AssertionError unless a claim holds."""
    if not holds:
        raise AssertionError(f"does not hold: {claim}")


def say(text: str) -> None:
    """Print a paragraph."""
    print("\n" + textwrap.fill(text, WIDTH))


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("  " + "".join(f"{cell:<24}" for cell in cells).rstrip())


def print_block(text: str, indent: int = 2) -> None:
    """Print lines with an indentation, and wrap long ones."""
    first, others = " " * indent, " " * (indent + 10)
    for line in text.splitlines():
        print(textwrap.fill(line, WIDTH, initial_indent=first, subsequent_indent=others))


PARTS: dict[str, Callable[[], object]] = {
    "1. Why": why,
    "2. Set-up": set_up,
    "3. Training": training,
    "4. Testing": evaluation,
    "5a. A wrong formula, taken for rounding": wrong_formula,
    "5b. A check that cannot fail": check_that_cannot_fail,
    "5c. An average that hides": averaged_away,
    "5d. Values that hide": hidden_by_friendly_values,
    "5e. Names that do not exist": misspelt_names,
}


def main() -> int:
    """Run all parts."""
    for title, part in PARTS.items():
        print(f"\n{title}\n{'-' * len(title)}")
        part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
