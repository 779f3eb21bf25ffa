"""Strange records of a forward are discrepancies, and each backward receives its own record."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Case, Config, Layer
from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Backward, Forward
from bn_spec.judge.verdict import Discrepancy
from bn_spec.play.player import play
from tests.judged_gradients import DY, GRADIENT, TWICE, judged, of_gradients
from tests.spoilt_backends import (
    SHAPE,
    Row,
    X,
    assert_found,
    id_of,
    raises,
    returns,
    spoilt,
    with_members,
)

STRANGE_RECORDS = (
    Row(
        "record gives an output alone",
        "record",
        lambda record, *a: record(*a)[0],
        "output",
        "record returned ndarray; expected an output and a record",
        SHAPE,
    ),
    Row(
        "record gives None",
        "record",
        returns(None),
        "output",
        "record returned NoneType; expected an output and a",
    ),
    Row(
        "record gives three values",
        "record",
        lambda r, *a: (*r(*a), 0),
        "output",
        "record returned tuple; expected",
    ),
    Row(
        "record gives a list",
        "record",
        lambda r, *a: [*r(*a)],
        "output",
        "record returned list; expected an output",
    ),
    Row(
        "record raises",
        "record",
        raises(KeyError("x")),
        "error",
        "raised KeyError: 'x'",
        "no error",
    ),
    Row(
        "record gives no output",
        "record",
        lambda record, *a: (None, record(*a)[1]),
        "output",
        "forward returned None; expected a tensor of shape (N, C, H, W)",
        SHAPE,
    ),
    Row(
        "double backward raises",
        "double_backward",
        raises(ValueError()),
        "error",
        "raised ValueError",
        case=TWICE,
    ),
    Row(
        "double backward gives two values",
        "double_backward",
        lambda b, *a: b(*a)[:2],
        "double_weight",
        "double_backward returned tuple; expected 3 gradients",
        "a double_weight of shape (2,)",
        case=TWICE,
    ),
    Row(
        "double backward lacks a gradient",
        "double_backward",
        lambda b, *a: DoubleGradients(*b(*a)[:2]),
        "double_weight",
        "None",
        "a double_weight of shape (2,)",
        case=TWICE,
    ),
    Row(
        "to_native raises",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "no error",
    ),
)


@pytest.mark.parametrize("row", of_gradients(STRANGE_RECORDS), ids=id_of)
def test_a_strange_gradient_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    found = assert_found(row, judged(row.case, spoilt(row.member, row.how)))
    assert found.step == (0 if row.id.startswith(("record", "no backward", "to_native")) else 1)


def test_a_dy_that_cannot_be_moved_in_is_blamed_on_its_own_step() -> None:
    def full(move: Callable[[Array], Array], array: Array) -> Array:
        if np.array_equal(array, DY):
            raise OSError("full")
        return move(array)

    assert judged(GRADIENT, spoilt("to_native", full)) == [
        Discrepancy("error", 1, "no error", "raised OSError: full")
    ]


def test_gradients_in_a_buffer_that_is_used_again_are_recorded_as_they_were_at_their_step() -> None:
    buffer = np.empty_like(X)
    backend = spoilt("backward", lambda _, __, dy: Gradients(np.add(dy, 0, out=buffer)))
    _, *answers = play(replace(GRADIENT, steps=(*GRADIENT.steps, Backward(X))), backend).answers
    found: list[Any] = [answer.results["grad_input"] for answer in answers]
    assert np.array_equal(found, [DY, X])


def test_each_backward_is_given_the_record_of_its_own_forward_and_a_private_copy_of_dy() -> None:
    met: list[object] = []

    def recording(_: object, x: Array, wrt: tuple[str, ...]) -> tuple[Array, object]:
        return x, (float(x[0, 0, 0, 0]), wrt)

    def backward(_: object, record: object, dy: Array) -> Gradients:
        met.append((record, dy[0, 0, 0, 0].item()))
        dy[...] = 7
        return Gradients()

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        return with_members(
            original(*arguments),
            record=partial(recording, None),
            backward=partial(backward, None),
            forward=lambda x: x,
        )

    steps = (
        Forward(X, ("input",)),
        Forward(X + 5, ("bias", "weight")),
        Backward(DY),
        Forward(X + 6),
        Backward(DY, 0),
        Backward(DY, -2),
        Backward(DY, 1),
    )
    play(Case(Config(2), None, steps), spoilt("layer", build))
    first, second = (0.0, ("input",)), (5.0, ("bias", "weight"))
    assert met == [(record, 4.0) for record in (second, first, second, second)]
