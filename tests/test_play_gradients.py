"""A strange gradient becomes a discrepancy with a clear sentence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, Layer
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import Gradients
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import DIFFERENTIABLE, Backward, Forward
from tests.judged_gradients import DY, GRADIENT, TWICE, judged, of_gradients
from tests.spoilt_backends import (
    UNREADABLE,
    How,
    Partial,
    Row,
    X,
    assert_found,
    id_of,
    moves,
    raises,
    returns,
    spoilt,
    with_members,
)

OF_INPUT = Case(Config(2), None, (Forward(X, ("input",)), Backward(DY)))


def instead(**gradients: Callable[[Array], Any]) -> How:
    """Change some of the gradients that a layer answers."""

    def changed(backward: Callable[..., Gradients], *arguments: object) -> Gradients:
        answer = backward(*arguments)
        return answer._replace(
            **{name: change(getattr(answer, name)) for name, change in gradients.items()}
        )

    return changed


def overwrites(place: str) -> How:
    """Write into a tensor that a backward was handed, or that it knows of its forward."""

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = original(*arguments)
        record, backward, double_backward = layer.record, layer.backward, layer.double_backward
        tensors: dict[str, Array] = {}

        def recording(x: Array, wrt: tuple[str, ...]) -> tuple[Array, Any]:
            tensors["x"] = x
            recorded: tuple[Array, Any] = record(x, wrt)
            return recorded

        def writing(compute: Callable[..., Any]) -> Callable[..., Any]:
            def computing(recorded: Any, dy: Array, *cotangents: Gradients) -> Any:
                answer = compute(recorded, dy, *cotangents)
                tensors["dy"] = dy
                tensors.update(*(gradients._asdict() for gradients in cotangents))
                tensors[place][(0,) * tensors[place].ndim] = 42
                return answer

            return computing

        return with_members(
            layer,
            record=recording,
            backward=writing(backward),
            double_backward=writing(double_backward),
        )

    return build


def loses_its_state(build: Callable[..., Layer], *arguments: object) -> Layer:
    layer: Any = build(*arguments)

    def losing(*_: object) -> Gradients:
        layer.state = partial(raises(OSError("gone")), None)
        return Gradients()

    return with_members(layer, backward=losing)


A_GRADIENT = "a grad_input of shape (2, 2, 2, 1)"

STRANGE_GRADIENTS = (
    Row(
        "backward raises",
        "backward",
        raises(KeyError("dy")),
        "error",
        "raised KeyError: 'dy'",
        "no error",
    ),
    Row(
        "no backward",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "raised AttributeError: 'Partial' object has no attribute 'record'",
    ),
    Row(
        "backward gives None",
        "backward",
        returns(None),
        "grad_input",
        "backward returned NoneType; expected 3",
    ),
    Row(
        "backward gives an object",
        "backward",
        returns(object()),
        "grad_weight",
        "backward returned object; exp",
    ),
    Row(
        "backward gives an array",
        "backward",
        returns(np.zeros(3)),
        "grad_bias",
        "backward returned ndarray; exp",
    ),
    Row(
        "backward gives a dict",
        "backward",
        lambda b, *a: b(*a)._asdict(),
        "grad_input",
        "returned dict; expected",
    ),
    Row(
        "backward gives nothing",
        "backward",
        returns(()),
        "grad_input",
        "returned tuple; expected 3 gradients",
    ),
    Row(
        "backward gives two values",
        "backward",
        lambda b, *a: b(*a)[:2],
        "grad_input",
        "backward returned tuple; expected 3 gradients",
        A_GRADIENT,
    ),
    Row(
        "backward gives four values",
        "backward",
        lambda b, *a: (*b(*a), None),
        "grad_bias",
        "expected 3 gradients",
    ),
    Row(
        "backward gives text",
        "backward",
        returns("dx"),
        "grad_input",
        "backward returned str; expected 3 gradients",
    ),
    Row(
        "backward gives three letters",
        "backward",
        returns("xwb"),
        "grad_input",
        "backward returned str; expected a tensor that becomes a numeric NumPy array",
        A_GRADIENT,
    ),
    Row(
        "a gradient is an object",
        "backward",
        instead(weight=lambda _: object()),
        "grad_weight",
        "backward returned object; expected a tensor that becomes a numeric NumPy array",
        "a grad_weight of shape (2,)",
    ),
    Row(
        "a gradient is missing",
        "backward",
        instead(bias=lambda _: None),
        "grad_bias",
        "None",
        "of shape (2,)",
    ),
    Row(
        "dx lacks an axis",
        "backward",
        instead(input=lambda dx: dx[0]),
        "grad_input",
        "shape (2, 2, 1)",
        A_GRADIENT,
    ),
    Row(
        "dx lies in rows",
        "backward",
        instead(input=lambda dx: dx.reshape(2, -1)),
        "gradient_form",
        "shape (2, 4), dtype float32",
        "grad_input of shape (2, 2, 2, 1) and dtype float32",
    ),
    Row(
        "dweight is a column",
        "backward",
        instead(weight=lambda dw: dw[:, None]),
        "grad_weight",
        "shape (2, 1), dtype float32",
        "a grad_weight of shape (2,)",
    ),
    Row(
        "dbias is one number",
        "backward",
        instead(bias=lambda db: db.sum()),
        "gradient_form",
        "shape (), dtype float32",
        "grad_bias of shape (2,) and dtype float32",
    ),
    Row(
        "dx is of another precision",
        "backward",
        instead(input=lambda dx: dx.astype(np.float64)),
        "gradient_form",
        "shape (2, 2, 2, 1), dtype float64",
        "grad_input of shape (2, 2, 2, 1) and dtype float32",
    ),
    Row(
        "dweight is of half precision",
        "backward",
        instead(weight=lambda dw: dw.astype(np.float16)),
        "gradient_form",
        "dtype float16",
        "grad_weight of shape (2,) and dtype float32",
    ),
    Row(
        "dbias is of integers",
        "backward",
        instead(bias=lambda db: db.astype(int)),
        "grad_bias",
        "shape (2,), dtype int64",
        "a grad_bias of shape (2,)",
    ),
    Row(
        "dx is NaN",
        "backward",
        instead(input=lambda dx: dx * np.nan),
        "grad_input",
        "nan",
        "grad_input[0, 0, 0, 0]",
    ),
    Row(
        "dbias is infinite",
        "backward",
        instead(bias=lambda db: db + np.inf),
        "grad_bias",
        "inf",
        "grad_bias[0] = ",
    ),
    Row(
        "a gradient that nobody asked for",
        "backward",
        instead(weight=lambda _: np.zeros(2, np.float32)),
        "grad_weight",
        "[0., 0.] (float32, shape (2,))",
        "no grad_weight, since it was not asked",
        case=OF_INPUT,
    ),
    Row("backward mutates dy", "layer", overwrites("dy"), "handed", "[[[[42.]", "dy stays [[[[4.]"),
    Row("backward mutates x", "layer", overwrites("x"), "handed", "[[[[42.]", "x stays [[[[0.]"),
    *(
        Row(
            f"double backward mutates {name}",
            "layer",
            overwrites(name),
            "handed",
            "42.",
            f"{name} stays ",
            case=TWICE,
        )
        for name in ("dy", "x", *DIFFERENTIABLE)
    ),
    *(
        Row(f"backward changes {name}", "layer", moves(name), name, "", name)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ),
    Row(
        "backward loses the state",
        "layer",
        loses_its_state,
        "weight",
        f"{UNREADABLE} OSError: gone",
        "weight can be read",
    ),
)


@pytest.mark.parametrize("row", of_gradients(STRANGE_GRADIENTS), ids=id_of)
def test_a_strange_gradient_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    found = assert_found(row, judged(row.case, spoilt(row.member, row.how)))
    assert found.step == (0 if row.id.startswith(("record", "no backward", "to_native")) else 1)


@pytest.mark.parametrize("case", [GRADIENT, OF_INPUT, TWICE])
def test_the_gradients_of_the_reference_give_no_discrepancy(case: Case) -> None:
    assert judged(case, Reference()) == []
