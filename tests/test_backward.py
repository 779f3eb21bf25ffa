"""Backward passes: tensors handed over, zeros and laws; their values are tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bn_spec import Case, Config, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import Gradients
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import DIFFERENTIABLE, Backward, Eval, Forward, Train
from bn_spec.judge.finding import describe
from bn_spec.judge.judging import judge
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS

RNG = np.random.default_rng(1)
X, DY, OTHER = RNG.normal(size=(3, 2, 2, 3, 1)).astype(np.float32)
CASE = Case(Config(2), None, (Forward(X, DIFFERENTIABLE), Backward(DY)))
GRADIENTS = ("grad_input", "grad_weight", "grad_bias")


# Handed over --------------------------------------------------------------------------


def test_an_equal_input_is_the_same_tensor_and_another_is_not() -> None:
    class Noting(Reference):
        def to_native(self, array: Array) -> Array:
            moved.append(array)
            return array

    moved: list[Array] = []
    steps = (
        Forward(X),
        Eval(),
        Forward(X.copy(), DIFFERENTIABLE),
        Forward(OTHER),
        Forward(PLACED["permuted"](OTHER)),
    )
    play(Case(Config(2), None, steps), Noting())
    assert len(moved) == 3
    play(Case(Config(2), None, (Forward(X), Forward(OTHER), Forward(X))), Noting())
    assert len(moved) == 6  # only the forward just before counts


def test_steps_are_told_to_people() -> None:
    steps = (
        Forward(X, ("input", "bias")),
        Forward(OTHER, ("input",)),
        Backward(DY, 0),
        Train(),
        Backward(DY),
    )
    told = list(describe(Case(Config(2), None, steps)))
    assert told[1].startswith(
        "1. forward, for gradients of input, bias, x of shape (2, 2, 3, 1) = ["
    )
    assert told[3].startswith("3. backward of forward 1, dy = [")
    assert told[5].startswith("5. backward, dy = [")


# Zeros and laws -----------------------------------------------------------------------


class Strange(Reference):
    """The reference with other methods in its layers.

    A method takes the usual method, the layer, and the arguments of the call.
    """

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.methods = methods

    def layer(self, config: Config, state: State | None) -> Any:
        layer: Any = super().layer(config, state)
        for name, method in self.methods.items():
            setattr(layer, name, _bound(method, getattr(layer, name), layer))
        return layer


def _bound(method: Callable[..., Any], usual: Any, layer: Any) -> Callable[..., Any]:
    return lambda *arguments: method(usual, layer, *arguments)


def _changed(**parts: Callable[[Array], Any]) -> Callable[..., Any]:
    def backward(usual: Any, _: Any, record: Any, dy: Array) -> Gradients:
        gradients: Gradients = usual(record, dy)
        return gradients._replace(
            **{name: how(getattr(gradients, name)) for name, how in parts.items()}
        )

    return backward


def test_a_gradient_that_was_not_asked_must_not_come() -> None:
    case = Case(Config(2), None, (Forward(X, ("input",)), Backward(DY)))
    (found,) = check(case, Strange(backward=_changed(bias=lambda _: np.zeros(2, np.float32))))
    assert found.observable == "grad_bias"
    assert "was not asked" in found.expected


def test_a_dy_of_zeros_leaves_no_room_for_error() -> None:
    case = Case(Config(2), None, (Forward(X, DIFFERENTIABLE), Backward(0 * DY)))
    assert check(case, Reference()) == []
    (found,) = check(case, Strange(backward=_changed(weight=lambda g: g + np.float32(1e-30))))
    assert found.observable == "grad_weight"
    assert "± 0.0e+00" in found.expected


def test_the_laws_notice_what_they_are_about_and_nothing_else() -> None:
    integers = np.arange(12, dtype=np.float32).reshape(X.shape)
    steps = (
        Forward(X, DIFFERENTIABLE),
        Backward(integers),
        Backward(2 * integers),
        Backward(3 * integers),
    )

    def laws(**steps_wrong: Callable[..., Any]) -> set[str]:
        case = Case(Config(2), None, steps)
        names = ("gradient_linearity", "gradient_sums")
        verdict = judge(case, play(case, Strange(**steps_wrong)), names, Reference.capabilities)
        assert verdict.judged > 0
        return {d.observable for d in verdict.discrepancies}

    assert laws() == set()
    assert laws(backward=_changed(weight=np.cbrt)) == {"gradient_linearity"}
    assert laws(backward=_changed(input=lambda g: g + 1)) == {"gradient_linearity", "gradient_sums"}
    # The sum of dx x̂ is not zero, since eps is not.
    assert laws(backward=_changed(input=lambda g: 3 * g)) == {"gradient_sums"}


# Specimens ----------------------------------------------------------------------------


def test_half_of_the_faulty_backwards_are_taken_from_trackers() -> None:
    faulty = [s for s in SPECIMENS.values() if s.kernel.__module__.endswith("backward")]
    assert len(faulty) >= 40
    assert sum(bool(s.history) for s in faulty) > len(faulty) / 2
    assert all(any(requirement.startswith("GRD-") for requirement in s.caught_by) for s in faulty)
