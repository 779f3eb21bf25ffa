"""BatchNorm2d from the sigmoid to the running statistics, and five ways of getting it wrong unnoticed.

A tutorial that runs: every number is computed as it is printed, and every claim is asserted.
``python examples/walkthrough.py`` needs bn-spec and PyTorch.
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
from bn_spec.specification.requirement import requirement_named
from bn_spec.strategies import cases, shapes
from bn_spec.suite.profiles import PROFILES

Array: TypeAlias = npt.NDArray[Any]
Answer: TypeAlias = tuple[Array, Array | None, Array | None]
Shares: TypeAlias = dict[str, float]
"""The worst err / bound over all elements, by tensor."""

CHANNELS = 16
CONFIG = Config(CHANNELS)
TWO_PASS = Accuracy("two-pass")
BATCH = (0, 2, 3)
"""The axes of (N, C, H, W) that a channel's statistics run over."""


def uniform(shape: tuple[int, int, int, int], seed: int = 0) -> Array:
    """Return float32 data, uniform on [0, 1)."""
    return np.random.default_rng(seed).random(shape, np.float32)


TUTORIAL = Case(CONFIG, initial_state(CONFIG), (Forward(uniform((10, CHANNELS, 10, 10))),))
"""One training step on a new layer with default arguments: all that the tutorial looks at."""

X = next(TUTORIAL.forwards())


# By hand -----------------------------------------------------------------------------------------------


def column(values: Array) -> Array:
    """Lay per-channel values (C,) out so that they broadcast against (N, C, H, W)."""
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
    """Return what a kernel makes of the tutorial's batch, from the tensors of a new layer."""
    fresh = {
        name: tensor
        for name, tensor in initial_state(CONFIG).items()
        if name != "num_batches_tracked"
    }
    return kernel(X, **fresh, momentum=CONFIG.momentum, eps=CONFIG.eps)


# 1. Why ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """Slopes of the sigmoid: the steepest there is, and the average over spread and over normalised values."""

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
        *(
            float(s)
            for s in (
                sigmoid_slope(grid).max(),
                sigmoid_slope(spread).mean(),
                sigmoid_slope(layer(spread)).mean(),
            )
        )
    )
    say(
        f"The sigmoid's derivative is at most {slopes.steepest:g}, at 0, and vanishes away from it. Activations with"
        f" mean {spread.mean():.1f} and standard deviation {spread.std():.1f} meet an average slope of"
        f" {slopes.spread:.3f}; after BatchNorm2d the same activations meet {slopes.normalised:.3f}, and gradients"
        " get through."
    )
    require(slopes.steepest <= 0.25, "the derivative is at most 1/4")
    require(slopes.normalised > 4 * slopes.spread, "normalising brings the slope back")
    return slopes


# 2. Set-up ---------------------------------------------------------------------------------------------


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
    """Build a layer of each library, and show that both hold the same five tensors."""
    states = {library: tensors_of(layer) for library, layer in layers().items()}
    say(
        f"The data: uniform on [0, 1), shape {X.shape} — batch, channels, height, width. The layer:"
        f" BatchNorm2d({CHANNELS}), that is eps={CONFIG.eps}, momentum={CONFIG.momentum}, affine={CONFIG.affine},"
        f" track_running_stats={CONFIG.track_running_stats}. It is built with five tensors, the first two trainable:"
    )
    for name, tensor in states["bn_spec"].items():
        held = numpy(tensor)
        row(name, f"shape {held.shape}", str(held.dtype), f"all {held.flat[0]}")
    for state in states.values():
        for (name, got), (_, wanted) in zip(
            state.items(), initial_state(CONFIG).items(), strict=True
        ):
            require(
                same_bits(numpy(got), numpy(wanted)), f"{name} is built as the documentation says"
            )
    return states


# 3. Training -------------------------------------------------------------------------------------------


def training() -> dict[str, Shares]:
    """Train one step by hand and with both libraries; return the worst err / bound of each tensor."""
    results = {"by hand": first_step(by_hand)}
    for library, layer in layers().items():
        results[library] = (call(layer, X), numpy(layer.running_mean), numpy(layer.running_var))
    say(
        "In training mode each channel is normalised by the mean and the *biased* variance of its batch, while"
        " running_var moves towards the *unbiased* one. An exact reference gives each element's value, and a theorem"
        " gives the largest error that correct rounding can cause in it. Below: the worst error over all elements, as"
        " a share of that bound. Anything up to 1 is rounding; anything above is another formula."
    )
    shares = {who: training_shares(result) for who, result in results.items()}
    print_shares(shares)
    return shares


def training_bounds() -> dict[str, Bounded]:
    """Return the exact results of the tutorial's training step, with a bound per element."""
    expected = expect(CONFIG, initial_state(CONFIG), True, Forward(X), TWO_PASS)
    names = ("output", "running_mean", "running_var")
    return {name: bounded for name in names if (bounded := getattr(expected, name)) is not None}


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
    for who, by_tensor in shares.items():
        row(who, *(f"{share:.2g}" for share in by_tensor.values()))
        require(max(by_tensor.values()) <= 1, f"{who} stays within the bound")


# 4. Testing --------------------------------------------------------------------------------------------


def evaluation() -> dict[str, Shares]:
    """Hand a new batch to trained layers in eval mode; return the worst err / bound of each output."""
    x = uniform((3, CHANNELS, 7, 5), seed=1)
    say(
        f"In eval mode the running statistics normalise, here a new batch of shape {x.shape}. The hand computation"
        " takes the running statistics that the layer reports, and nothing that the layer computed from this batch."
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
            require(
                same_bits(numpy(old), numpy(new)), f"eval mode leaves {name} of {library} alone"
            )
    print_shares(shares)
    say("Afterwards all five tensors of both layers are what they were, bit for bit.")
    return shares


def eval_by_hand(x: Array, held: State) -> Array:
    """Normalise by the running statistics of a layer."""
    mean, var = numpy(held.running_mean), numpy(held.running_var)
    return normalised(x, mean, var, held.weight, held.bias, CONFIG.eps)


# 5. Slips ----------------------------------------------------------------------------------------------
# Each is by_hand with one thing wrong; `given` stands for the tensors, momentum and eps of the call.


def unbiased(
    x: Array, weight: Array | None, bias: Array | None, eps: float, **given: Any
) -> Answer:
    """Normalise by the unbiased variance, as the tutorial did."""
    _, mean, var = by_hand(x, weight, bias, eps=eps, **given)
    return normalised(x, x.mean(BATCH), x.var(BATCH, ddof=1), weight, bias, eps), mean, var


def unbiased_last_channel(x: Array, **given: Any) -> Answer:
    """Make the same mistake in the last channel alone."""
    y, mean, var = by_hand(x, **given)
    y[:, -1] = unbiased(x, **given)[0][:, -1]
    return y, mean, var


def last_element_forgotten(x: Array, **given: Any) -> Answer:
    """Leave the very last element unwritten, as a kernel does whose blocks do not cover the data."""
    y, mean, var = by_hand(x, **given)
    y[-1, -1, -1, -1] = 0
    return y, mean, var


def affine_ignored(x: Array, **given: Any) -> Answer:
    """Forget weight and bias."""
    return by_hand(x, **given | {"weight": None, "bias": None})


def momentum_inverted(x: Array, **given: Any) -> Answer:
    """Take momentum for the weight of the old value."""
    return by_hand(x, **given | {"momentum": 1 - given["momentum"]})


def history_ignored(x: Array, **given: Any) -> Answer:
    """Move the running statistics from 0 and 1, whatever they were."""
    zeros = np.zeros(x.shape[1], x.dtype)
    return by_hand(x, **given | {"running_mean": zeros, "running_var": zeros + 1})


def misspelt(x: Any, **given: Any) -> Answer:
    """Misspell a method."""
    return by_hand(x - x.maen(), **given)


def backend_of(kernel: Callable[..., Answer]) -> Backend:
    """Put a training kernel under test."""
    claims = Capabilities(grade="two-pass", inference=False)
    return kernel_backend(kernel.__name__, kernel, capabilities=claims)


@dataclass(frozen=True)
class Caught:
    """A case on which a backend is wrong, and what is wrong."""

    case: Case
    discrepancy: Discrepancy


def caught(backend: Backend) -> Caught:
    """Return the smallest case, of those of tiny shapes that the suite draws, on which the backend is wrong."""
    drawn = cases(claims=backend.capabilities, shape=shapes("tiny"))
    settings = PROFILES["ci"].settings()
    case = find(drawn, lambda case: bool(check(case, backend)), settings=settings, random=Random(0))
    return Caught(case, check(case, backend)[0])


def print_caught(requirement: str, found: Caught) -> None:
    """Print the requirement that a case violates, the case, what is expected of it and what was got."""
    wrong = found.discrepancy
    print_block(f"{requirement}  {requirement_named(requirement).sentence}")
    for number, line in enumerate(describe(found.case)):
        print_block(f"  {'case' if number == 0 else '':<10}{line}")
    print_block(f"  {'expected':<10}{wrong.expected}")
    print_block(f"  {'got':<10}{wrong.got}          ({wrong.factor:.2g} × the bound)")


def wrong_formula() -> tuple[Discrepancy, Caught]:
    """Slip 1: the output is normalised by the unbiased variance. Return what the suite says of it."""
    backend = backend_of(unbiased)
    on_tutorial, found = check(TUTORIAL, backend)[0], caught(backend)
    error = mean_absolute_error(first_step(unbiased)[0])
    say(
        f"The tutorial's hand computation divides by the unbiased variance. Its mean absolute error of {error:.1e}"
        f" looks like rounding. On the same data the suite reports {on_tutorial.factor:.2g} times the bound; and it"
        " shrinks the failure to a case that can be worked out on paper:"
    )
    print_caught("TRN-01", found)
    require(not check(TUTORIAL, backend_of(by_hand)), "the right formula is accepted")
    for discrepancy in (on_tutorial, found.discrepancy):
        require(
            discrepancy.observable == "output" and discrepancy.factor > 1,
            "the wrong formula is caught",
        )
    return on_tutorial, found


@dataclass(frozen=True)
class EvalChecks:
    """What two checks of an eval output say of a right layer and of one that normalises by the batch."""

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
        "The tutorial's eval check subtracts a result from itself. Next to it, a comparison that can fail:"
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
    """Two summaries of the same errors."""

    mean_absolute: float
    worst_share: float


def averaged_away() -> dict[str, Errors]:
    """Slip 3: a mean absolute error over all elements hides a wrong channel and a wrong tail."""
    errors: dict[str, Errors] = {}
    say(
        "A mean over all elements hides a wrong channel and a wrong tail. The worst element does not:"
    )
    row("", "mean abs. error", "worst err / bound")
    for kernel in (by_hand, unbiased, unbiased_last_channel, last_element_forgotten):
        y = first_step(kernel)[0]
        errors[kernel.__name__] = Errors(
            mean_absolute_error(y), worst_share(training_bounds()["output"], y)
        )
        shown = errors[kernel.__name__]
        row(kernel.__name__, f"{shown.mean_absolute:.1e}", f"{shown.worst_share:.2g}")
    hidden = errors["unbiased_last_channel"], errors["last_element_forgotten"]
    for each in hidden:
        require(each.mean_absolute < errors["unbiased"].mean_absolute, "the mean hides it")
        require(each.worst_share > 1, "the worst element shows it")
    return errors


def mean_absolute_error(y: Array) -> float:
    """Return what the tutorial compares by."""
    bounded = training_bounds()["output"]
    return float((bounded.share(y) * bounded.bound).mean())


@dataclass(frozen=True)
class Friendly:
    """A fault, the requirement that it violates, and a case whose values are too friendly to show it."""

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
    """Slip 4: gamma 1, beta 0, running statistics 0 and 1, and one step hide faults. Return what shows each."""
    found = {fault.kernel.__name__: caught(backend_of(fault.kernel)) for fault in FRIENDLY}
    say(
        "With weight 1, bias 0 and running statistics 0 and 1, one step cannot tell whether any of them is used; and"
        " momentum 0.5 reads the same from both ends. The suite draws all of them:"
    )
    for fault in FRIENDLY:
        name, backend = fault.kernel.__name__, backend_of(fault.kernel)
        on_friendly = check(fault.case, backend)
        print(f"\n  {name}: {len(on_friendly)} discrepancies on the friendly case; caught by")
        print_caught(fault.requirement, found[name])
        require(not on_friendly, f"the friendly case hides {name}")
    inverted = check(TUTORIAL, backend_of(momentum_inverted))[0]
    say(
        f"Momentum {CONFIG.momentum} alone would have shown the last: {inverted.factor:.2g} times the bound."
    )
    require(inverted.factor > 1, "momentum 0.1 shows an inverted momentum")
    return found


def misspelt_names() -> list[str]:
    """Slip 5: names that do not exist. Return what each library, and then the suite, says of one."""
    say(
        "A misspelt name is an error on the spot, and an error inside a layer is a finding like any other:"
    )
    sentences = [
        sentence
        for layer in layers().values()
        for sentence in attribute_errors(layer, "runing_var")
    ]
    finding = check(TUTORIAL, backend_of(misspelt))[0]
    sentences.append(f"expected {finding.expected}; it {finding.got}")
    for sentence in sentences:
        print_block(sentence)
    require(
        len(sentences) == 3 and finding.observable == "error", "every misspelt name is reported"
    )
    return sentences


def attribute_errors(layer: Any, name: str) -> Iterator[str]:
    """Yield what a layer says of an attribute that it lacks."""
    try:
        getattr(layer, name)
    except AttributeError as error:
        yield f"{type(error).__name__}: {error}"


# Telling -----------------------------------------------------------------------------------------------

WIDTH = 100


def require(holds: bool, claim: str) -> None:
    """Stop unless the claim holds."""
    if not holds:
        raise AssertionError(f"does not hold: {claim}")


def say(text: str) -> None:
    """Print a paragraph."""
    print("\n" + textwrap.fill(text, WIDTH))


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("  " + "".join(f"{cell:<24}" for cell in cells).rstrip())


def print_block(text: str, indent: int = 2) -> None:
    """Print lines, indented, broken where they are too long."""
    for line in text.splitlines():
        print(
            textwrap.fill(
                line, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 10)
            )
        )


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
    """Tell the whole story."""
    for title, part in PARTS.items():
        print(f"\n{title}\n{'-' * len(title)}")
        part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
