"""The reference with some of its methods replaced, and rows of strange answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from bn_spec import Backend, Case, Config, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Eval, Forward, ResetParameters, ResetRunningStats, Train
from bn_spec.judge.verdict import Discrepancy

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
TRAINING = Case(Config(2), None, (Forward(X), Forward(X + 1)))
INFERENCE = Case(Config(2), None, (Eval(), Forward(X)))
MODES = Case(Config(2), None, (Train(), Eval()))
RESETS = Case(Config(2), None, (ResetRunningStats(), ResetParameters()))
CUMULATIVE = Case(Config(2, momentum=None), None, (Forward(X), Forward(X + 1)))
HUGE = Case(Config(2), None, (Forward(X * np.float32(1e37)),))

How = Callable[..., Any]


def spoilt(member: str, how: How) -> Backend:
    """The reference with one member of the backend, or else of its layers, replaced by ``how``.

    ``how`` is called with the original member, then with the arguments of the call.
    """
    backend = Reference()
    if hasattr(backend, member):
        setattr(backend, member, partial(how, getattr(backend, member)))
        return backend

    def layer(
        build: Callable[[Config, State | None], Layer], config: Config, state: State | None
    ) -> Layer:
        built = build(config, state)
        setattr(built, member, partial(how, getattr(built, member)))
        return built

    return spoilt("layer", layer)


def changed(**members: How) -> Backend:
    """The reference with several methods of its layers replaced, each as in :func:`spoilt`."""

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = original(*arguments)
        return with_members(
            layer, **{name: partial(how, getattr(layer, name)) for name, how in members.items()}
        )

    return spoilt("layer", build)


def returns(answer: object) -> How:
    return lambda _, *__: answer


def raises(error: Exception) -> How:
    def raising(_: object, *__: object, **___: object) -> NoReturn:
        raise error

    return raising


def after_a_batch(**tensors: object) -> How:
    """Change tensors of the state that the layer reports once a batch was counted."""
    return lambda state: replace(state(), **tensors) if state().num_batches_tracked else state()


def moves(field: str, member: str = "backward") -> How:
    """Change a tensor of the state in a call that must leave it alone."""

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = original(*arguments)
        call = getattr(layer, member)

        def moving(*arguments: object) -> Any:
            held = layer.layer
            setattr(held, field, getattr(held, field) + getattr(held, field).dtype.type(1))
            return call(*arguments)

        return with_members(layer, **{member: moving})

    return build


def mutates(forward: Callable[[Array], Array], x: Array) -> Array:
    y = forward(x)
    x[0, 0, 0, 0] = 42
    return y


@dataclass(frozen=True)
class Row:
    """A strange backend, the discrepancy that it must cause, and words of its sentences."""

    id: str
    member: str
    how: How
    observable: str
    got: str
    expected: str = ""
    case: Case = TRAINING


SHAPE = "an output of shape (2, 2, 2, 1)"

UNREADABLE = "reading the layer's state raised"


def with_members(layer: Layer, **members: object) -> Layer:
    for name, member in members.items():
        setattr(layer, name, member)
    return layer


class Partial:
    """A layer without resets."""

    def __init__(self, layer: Layer) -> None:
        self.train, self.forward, self.state = layer.train, layer.forward, layer.state


def id_of(row: Row) -> str:
    return row.id


def assert_found(row: Row, discrepancies: list[Discrepancy]) -> Discrepancy:
    """Assert that the discrepancies include the one of the row, and return it."""
    found = next((d for d in discrepancies if d.observable == row.observable), None)
    assert found, discrepancies
    assert row.got in found.got
    assert row.expected in found.expected
    return found
