"""Loads are judged: what must be refused, what must be accepted, what must stay."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.config import STATE_FIELDS, initial_state
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Backward, Forward, Load
from bn_spec.judge.verdict import Discrepancy
from tests.judged_histories import (
    FOUR,
    ONE,
    OTHER,
    OUTPUTS,
    STATE,
    TWO,
    X,
    case_of,
    judged,
    layer_of,
    places,
)
from tests.spoilt_backends import changed, raises, returns

ALL = STATE.tensors()
LONG = np.ones(3, np.float32)

REFUSED: dict[str, tuple[dict[str, Array], bool, dict[str, Any], str]] = {
    "too few": ({name: ALL[name] for name in STATE_FIELDS[1:]}, True, {}, "weight is missing"),
    "two too few": (
        {name: ALL[name] for name in STATE_FIELDS[2:]},
        True,
        {},
        "bias and weight is missing",
    ),
    "none": (
        {},
        True,
        {"affine": False},
        "num_batches_tracked and running_mean and running_var is missing",
    ),
    "too many": (ALL, True, {"affine": False}, "the layer has no bias and weight"),
    "statistics too many": (
        ALL,
        True,
        {"track_running_stats": False},
        "the layer has no num_batches_tracked and running_mean and running_var",
    ),
    "too long": (ALL | {"bias": LONG}, True, {}, "bias has shape (3,), the layer's (2,)"),
    "a column": (
        ALL | {"running_var": FOUR[:, None]},
        True,
        {},
        "running_var has shape (2, 1), the layer's (2,)",
    ),
    "a counter of one dimension": (
        ALL | {"num_batches_tracked": np.ones(1, np.int64)},
        True,
        {},
        "num_batches_tracked has shape (1,), the layer's ()",
    ),
    "one, too long": ({"bias": LONG}, False, {}, "bias has shape (3,), the layer's (2,)"),
    "one, too long, beside one that the layer has not": (
        {"bias": LONG, "running_mean": ONE},
        False,
        {"track_running_stats": False},
        "bias has shape (3,), the layer's (2,)",
    ),
}

ACCEPTED: dict[str, tuple[dict[str, Array], bool, dict[str, Any]]] = {
    "all": (ALL, True, {}),
    "all by name": (ALL, False, {}),
    "all that the layer has": ({"weight": ONE, "bias": TWO}, True, {"track_running_stats": False}),
    "one": ({"bias": ONE}, False, {}),
    "none": ({}, False, {}),
    "none of a layer without any": ({}, True, {"affine": False, "track_running_stats": False}),
    "more than the layer has": (ALL, False, {"affine": False}),
    "one too long that the layer has not": (
        {"bias": LONG, "running_mean": ONE},
        False,
        {"affine": False},
    ),
    "other dtypes": ({name: a.astype(np.float64) for name, a in ALL.items()}, True, {}),
}


def loading(tensors: dict[str, Array], strict: bool, config: dict[str, Any]) -> Case:
    return case_of(Forward(X), Load(**tensors, strict=strict), Forward(X), **config)


@pytest.mark.parametrize(("tensors", "strict", "config", "reason"), REFUSED.values(), ids=REFUSED)
def test_tensors_that_do_not_fit_must_be_refused_with_an_error_of_a_known_kind(
    tensors: dict[str, Array], strict: bool, config: dict[str, Any], reason: str
) -> None:
    case = loading(tensors, strict, config)
    assert judged(case, Reference()) == []
    wanted = f"a RuntimeError or ValueError or KeyError, since {reason}"
    accepting, confused = (
        changed(load=lambda *_, **__: None),
        changed(load=raises(TypeError("shape"))),
    )
    assert judged(case, accepting) == [Discrepancy("refusal", 1, wanted, "an output and no error")]
    assert judged(case, confused) == [Discrepancy("refusal", 1, wanted, "raised TypeError: shape")]
    for kind in (RuntimeError, ValueError, KeyError):
        assert judged(case, changed(load=raises(kind("no")))) == []


@pytest.mark.parametrize(("tensors", "strict", "config"), ACCEPTED.values(), ids=ACCEPTED)
def test_tensors_that_fit_must_be_loaded(
    tensors: dict[str, Array], strict: bool, config: dict[str, Any]
) -> None:
    case = loading(tensors, strict, config)
    assert judged(case, Reference()) == []
    refusing = changed(load=raises(ValueError("no")))
    assert judged(case, refusing) == [Discrepancy("error", 1, "no error", "raised ValueError: no")]


def test_a_refused_load_must_leave_every_tensor_as_it_was() -> None:
    def until_refused(
        load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool
    ) -> None:
        for name, tensor in tensors.items():
            load({name: tensor}, strict=False)
        load(tensors, strict=strict)

    case = loading(ALL | {"running_var": LONG}, True, {})
    assert places(judged(case, changed(load=until_refused))) == [
        (name, 1) for name in STATE_FIELDS[:3]
    ]


@pytest.mark.parametrize("name", STATE_FIELDS)
def test_a_partial_load_must_leave_the_other_tensors_as_they_were(name: str) -> None:
    fresh = initial_state(Config(2)).tensors()

    def filling_in(
        load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool
    ) -> None:
        load(fresh | dict(tensors), strict=strict)

    (tensor,) = (a for other, a in ALL.items() if other == name)
    case = Case(Config(2), OTHER, (Load(**{name: tensor}, strict=False),))
    assert judged(case, Reference()) == []
    others = [(other, 0) for other in STATE_FIELDS if other != name]
    assert places(judged(case, changed(load=filling_in))) == others
    assert places(judged(case, changed(load=lambda *_, **__: None))) == [(name, 0)]


def test_loaded_tensors_must_take_the_dtype_of_the_layer() -> None:
    def widening(layer: Any) -> None:
        def load(tensors: Mapping[str, Array], **_: bool) -> None:
            layer.layer.bias = tensors["bias"]

        layer.load = load

    case = case_of(Load(bias=TWO.astype(np.float64), strict=False))
    assert judged(case, Reference()) == []
    (found,) = judged(case, layer_of(widening))
    assert (found.observable, "float64" in found.got, "float32" in found.expected) == (
        "bias",
        True,
        True,
    )


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_dy_of_another_shape_must_be_refused_and_changes_nothing(n: int) -> None:
    case = case_of(Forward(X, ("input",)), Backward(np.resize(X, (n, 2, 2, 1))), Backward(X))
    assert judged(case, Reference(), *OUTPUTS, "grad_input") == []
    wanted = (
        f"a RuntimeError or ValueError, since dy has shape ({n}, 2, 2, 1), the output (2, 2, 2, 1)"
    )

    def cut_to_fit(backward: Callable[..., Any], record: Any, dy: Array) -> Any:
        return backward(record, np.resize(dy, X.shape))

    found = judged(case, changed(backward=cut_to_fit))
    assert found == [Discrepancy("refusal", 1, wanted, "an output and no error")]


def test_a_case_is_judged_up_to_the_gradient_of_a_forward_that_must_be_refused() -> None:
    steps = Forward(X), Forward(X[:1, :, :1], ("input",)), Backward(X[:1, :, :1], 1), Forward(X)
    accepting = changed(record=lambda _, x, wrt: (x, wrt), backward=returns((X, None, None)))
    assert judged(case_of(*steps), Reference()) == []
    assert places(judged(case_of(*steps), accepting)) == [("refusal", 1)]
    assert places(judged(case_of(*steps[:2], Forward(X)), accepting)) == [("refusal", 1)]
