"""Whatever a backend answers becomes a discrepancy with a clear sentence, never a traceback of the suite's own."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pytest

from bn_spec import Backend, Case, Config, Layer, State, check
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.backend.contract import DoubleGradients, Gradients
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import PLACED
from bn_spec.case.steps import (
    DIFFERENTIABLE,
    DOUBLE_GRADIENTS,
    GRADIENTS,
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.judge.observables import OBSERVABLES
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play

from .common import printed_and_read

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
TRAINING = Case(Config(2), None, (Forward(X), Forward(X + 1)))
INFERENCE = Case(Config(2), None, (Eval(), Forward(X)))
MODES = Case(Config(2), None, (Train(), Eval()))
RESETS = Case(Config(2), None, (ResetRunningStats(), ResetParameters()))
CUMULATIVE = Case(Config(2, momentum=None), None, (Forward(X), Forward(X + 1)))
HUGE = Case(Config(2), None, (Forward(X * np.float32(1e37)),))

STORED = Case(Config(2), None, (Save(), Forward(X), Restore()))
LOADED = Case(Config(2), None, (Load(bias=np.ones(2, np.float32), strict=False), Forward(X)))
LIVE = Case(Config(2), None, (Set("eps", 0.5), Forward(X)))
KERNEL = np.arange(4, dtype=np.float32).reshape(2, 1, 2, 1)
FOLDING = Case(
    Config(2), None, (Eval(), Fold(KERNEL, np.ones(2, np.float32)), Fold(KERNEL), Forward(X))
)

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
        return _with(
            layer, **{name: partial(how, getattr(layer, name)) for name, how in members.items()}
        )

    return spoilt("layer", build)


def returns(answer: object) -> How:
    return lambda _, *__: answer


def raises(error: Exception) -> How:
    def raising(_: object, *__: object, **___: object) -> NoReturn:
        raise error

    return raising


def changes(**tensors: object) -> How:
    """Change tensors of the state that the layer reports."""
    return lambda state: replace(state(), **tensors)


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

        return _with(layer, **{member: moving})

    return build


def mutates(forward: Callable[[Array], Array], x: Array) -> Array:
    y = forward(x)
    x[0, 0, 0, 0] = 42
    return y


class Mute(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@dataclass(frozen=True)
class Row:
    """A strange backend, the first discrepancy that must come of it, and what its sentences contain."""

    id: str
    member: str
    how: How
    observable: str
    got: str
    expected: str = ""
    case: Case = TRAINING


SHAPE = "an output of shape (2, 2, 2, 1)"
CHECKPOINT = "a checkpoint of weight, bias, running_mean, running_var, num_batches_tracked"
UNREADABLE = "reading the layer's state raised"

STRANGE = (
    Row(
        "forward gives None",
        "forward",
        returns(None),
        "output",
        "forward returned None; expected a tensor",
        SHAPE,
    ),
    Row(
        "forward gives text",
        "forward",
        returns("y"),
        "output",
        "forward returned str; expected a tensor",
        SHAPE,
    ),
    Row(
        "forward gives an object",
        "forward",
        returns(object()),
        "output",
        "forward returned object; expected",
        SHAPE,
    ),
    Row(
        "forward gives a ragged list",
        "forward",
        returns([[1], [2, 3]]),
        "output",
        "forward returned list",
        SHAPE,
    ),
    Row(
        "forward gives a nested list",
        "forward",
        returns([1.0, 2.0]),
        "output",
        "shape (2,), dtype float64",
        SHAPE,
    ),
    Row(
        "forward gives a number",
        "forward",
        returns(np.array(1.0)),
        "output",
        "shape (), dtype float64",
        SHAPE,
    ),
    Row(
        "forward gives nothing",
        "forward",
        returns(np.zeros((0, 2, 2, 1))),
        "output",
        "shape (0, 2, 2, 1)",
        SHAPE,
    ),
    Row(
        "forward drops an axis",
        "forward",
        lambda f, x: f(x)[..., 0],
        "output",
        "shape (2, 2, 2), dtype",
        SHAPE,
    ),
    Row(
        "forward gives integers",
        "forward",
        lambda f, x: f(x).astype(int),
        "output",
        "dtype int64",
        SHAPE,
    ),
    Row(
        "forward gives complex numbers",
        "forward",
        lambda f, x: f(x) * 1j,
        "output",
        "forward returned ndarray",
        SHAPE,
    ),
    Row(
        "forward gives another precision",
        "forward",
        lambda f, x: f(x).astype(np.float64),
        "output_form",
        "float64",
        "an output of dtype float32",
    ),
    Row(
        "forward gives half precision",
        "forward",
        lambda f, x: f(x).astype(np.float16),
        "output",
        "",
        "output[",
    ),
    Row(
        "forward gives the extended precision of this machine",
        "forward",
        lambda f, x: f(x).astype(np.longdouble),
        "output_form",
        str(np.dtype(np.longdouble)),
        "an output of dtype float32",
    ),
    Row(
        "forward gives NaN",
        "forward",
        lambda f, x: f(x) * np.nan,
        "output",
        "nan",
        "output[0, 0, 0, 0] = ",
    ),
    Row(
        "forward gives infinities",
        "forward",
        lambda f, x: f(x) + np.inf,
        "output",
        "inf",
        "output[0, 0, 0, 0] = ",
    ),
    Row(
        "forward raises",
        "forward",
        raises(KeyError("x")),
        "error",
        "raised KeyError: 'x'",
        "no error",
    ),
    Row(
        "forward raises without words",
        "forward",
        raises(AssertionError()),
        "error",
        "raised AssertionError",
    ),
    Row("forward raises an unreadable error", "forward", raises(Mute()), "error", "raised Mute"),
    Row(
        "forward recurses",
        "forward",
        raises(RecursionError("too deep")),
        "error",
        "raised RecursionError: too deep",
    ),
    Row(
        "forward runs out of memory",
        "forward",
        raises(MemoryError()),
        "error",
        "raised MemoryError",
    ),
    Row(
        "forward ends an iteration",
        "forward",
        raises(StopIteration(1)),
        "error",
        "raised StopIteration: 1",
    ),
    Row(
        "forward is no function",
        "layer",
        lambda build, *a: _with(build(*a), forward=3),
        "error",
        "raised TypeError",
    ),
    Row(
        "forward mutates its input", "forward", mutates, "handed", "[[[[42.]", "input stays [[[[0.]"
    ),
    Row(
        "eval forward raises",
        "forward",
        raises(KeyError("x")),
        "error",
        "raised KeyError: 'x'",
        case=INFERENCE,
    ),
    Row(
        "train raises",
        "train",
        raises(ValueError("stuck")),
        "error",
        "raised ValueError: stuck",
        case=MODES,
    ),
    Row(
        "a reset raises",
        "reset_running_stats",
        raises(ValueError("no")),
        "error",
        "raised ValueError: no",
        case=RESETS,
    ),
    Row(
        "no reset",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "raised AttributeError",
        case=RESETS,
    ),
    Row(
        "layer raises",
        "layer",
        raises(OSError("no device")),
        "construction",
        "raised OSError: no device",
        "a layer",
    ),
    Row(
        "layer gives None",
        "layer",
        returns(None),
        "construction",
        f"{UNREADABLE} AttributeError",
        "a layer",
    ),
    Row(
        "state raises",
        "state",
        raises(OSError("gone")),
        "construction",
        f"{UNREADABLE} OSError: gone",
        "a layer",
    ),
    Row(
        "state is a dict",
        "state",
        returns({}),
        "construction",
        "the layer's state is dict; expected bn_spec.State",
    ),
    Row(
        "state is None",
        "state",
        returns(None),
        "construction",
        "the layer's state is NoneType; expected bn_spec",
    ),
    Row(
        "a tensor is a list",
        "state",
        changes(bias=[0, 0]),
        "construction",
        "bias is list; expected a NumPy array",
    ),
    Row(
        "state is lost in the end",
        "state",
        lambda state: {} if state().num_batches_tracked else state(),
        "running_mean",
        "the layer's state is dict; expected bn_spec.State",
        "running_mean can be read",
    ),
    Row(
        "running_mean is too long",
        "state",
        changes(running_mean=np.zeros(3, np.float32)),
        "state",
        "running_mean has shape (3,) and dtype float32",
        "a state that fits the config",
    ),
    Row("weight is None", "state", changes(weight=None), "state", "weight is None"),
    Row(
        "a tensor too many",
        "state",
        lambda state: replace(state(), bias=np.zeros(2, np.float32)),
        "state",
        "bias is present",
        case=replace(TRAINING, config=Config(2, affine=False)),
    ),
    Row(
        "running_var holds objects",
        "state",
        changes(running_var=np.array([None, None])),
        "state",
        "running_var has shape (2,) and dtype object",
    ),
    Row(
        "running_mean is too long in the end",
        "state",
        after_a_batch(running_mean=np.zeros(3, np.float32)),
        "running_mean",
        "[0., 0., 0.] (float32, shape (3,))",
        "running_mean",
    ),
    Row(
        "running_mean is lost in the end",
        "state",
        after_a_batch(running_mean=None),
        "running_mean",
        "None",
    ),
    Row(
        "running_mean holds objects in the end",
        "state",
        after_a_batch(running_mean=np.array([None, None])),
        "running_mean",
        "object",
    ),
    Row(
        "running_var holds objects in the end",
        "state",
        after_a_batch(running_var=np.array([None, None])),
        "running_var",
        "object",
    ),
    Row(
        "running_var holds text in the end",
        "state",
        after_a_batch(running_var=np.array(["a", "b"])),
        "running_var",
        "<U1",
    ),
    Row(
        "running_mean is NaN in the end",
        "state",
        after_a_batch(running_mean=np.full(2, np.nan)),
        "running_mean",
        "nan",
    ),
    Row(
        "running_var is infinite",
        "state",
        after_a_batch(running_var=np.full(2, np.inf)),
        "running_var",
        "inf",
    ),
    Row(
        "the counter is missing",
        "state",
        changes(num_batches_tracked=None),
        "num_batches_tracked",
        "None",
    ),
    Row(
        "the counter is lost in the end",
        "state",
        after_a_batch(num_batches_tracked=None),
        "num_batches_tracked",
        "None",
    ),
    Row(
        "weight is built as twos",
        "state",
        changes(weight=np.full(2, 2, np.float32)),
        "weight",
        "[2., 2.] (float32, shape (2,))",
        "weight = [1., 1.] (float32, shape (2,))",
        case=Case(Config(2)),
    ),
    Row(
        "the counter is a float",
        "state",
        lambda state: replace(
            state(), num_batches_tracked=np.asarray(state().num_batches_tracked, np.float64)
        ),
        "num_batches_tracked",
        ". (float64, shape ())",
    ),
    Row(
        "the counter is no array",
        "state",
        changes(num_batches_tracked=0),
        "construction",
        "num_batches_tracked is int; expected a NumPy array or None",
    ),
    Row(
        "the counter is a vector",
        "state",
        changes(num_batches_tracked=np.zeros(2)),
        "state",
        "has shape (2,)",
    ),
    Row(
        "the counter is NaN",
        "state",
        changes(num_batches_tracked=np.array(np.nan)),
        "num_batches_tracked",
        "nan",
        case=CUMULATIVE,
    ),
    Row(
        "the counter is infinite",
        "state",
        changes(num_batches_tracked=np.array(np.inf)),
        "num_batches_tracked",
        "inf",
        case=CUMULATIVE,
    ),
    Row(
        "the counter is minus one",
        "state",
        changes(num_batches_tracked=np.array(-1)),
        "num_batches_tracked",
        "-1",
        case=CUMULATIVE,
    ),
    Row(
        "to_native raises",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "no error",
    ),
    Row("to_native gives None", "to_native", returns(None), "error", "raised AttributeError"),
    Row(
        "to_numpy raises",
        "to_numpy",
        raises(OSError("lost")),
        "output",
        "forward returned ndarray, which the backend's to_numpy could not move out (raised OSError: lost)",
        SHAPE,
    ),
    Row(
        "to_numpy gives a list",
        "to_numpy",
        returns([1.0]),
        "output",
        "forward returned ndarray; expected a tensor that becomes a numeric NumPy array",
        SHAPE,
    ),
    Row(
        "save raises",
        "save",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "no error",
        STORED,
    ),
    Row(
        "save gives None",
        "save",
        returns(None),
        "checkpoint",
        "save returned NoneType; expected tensors by name",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives a list",
        "save",
        lambda save: list(save().values()),
        "checkpoint",
        "save returned list; expected tensors by name",
        CHECKPOINT,
        STORED,
    ),
    Row("save gives nothing", "save", returns({}), "checkpoint", "nothing", CHECKPOINT, STORED),
    Row(
        "save leaves the counter out",
        "save",
        lambda save: {name: a for name, a in save().items() if a.ndim},
        "checkpoint",
        "weight, bias, running_mean, running_var",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives a tensor too many",
        "save",
        lambda save: save() | {"gamma": X},
        "checkpoint",
        "num_batches_tracked, gamma",
        CHECKPOINT,
        STORED,
    ),
    Row(
        "save gives text",
        "save",
        lambda save: save() | {"bias": "zeros"},
        "checkpoint",
        "save returned str; expected a tensor that becomes a numeric NumPy array",
        "bias is saved as [0., 0.]",
        STORED,
    ),
    Row(
        "save gives a None among tensors",
        "save",
        lambda save: save() | {"bias": None},
        "checkpoint",
        "save returned None; expected a tensor",
        "bias is saved as [0., 0.]",
        STORED,
    ),
    Row(
        "save widens a tensor",
        "save",
        lambda save: save() | {"bias": np.zeros(2)},
        "checkpoint",
        "[0., 0.] (float64, shape (2,))",
        "bias is saved as [0., 0.] (float32, shape (2,))",
        STORED,
    ),
    Row(
        "a checkpoint is not loaded",
        "load",
        lambda _, tensors, *, strict: None,  # noqa: ARG005
        "num_batches_tracked",
        "1 (int64",
        "num_batches_tracked = 0 (int64",
        STORED,
    ),
    Row(
        "loading a checkpoint raises",
        "load",
        lambda _, tensors, *, strict: raises(KeyError(f"{strict} {len(tensors)}"))(None),
        "error",
        "raised KeyError: 'True 5'",
        "no error",
        STORED,
    ),
    Row(
        "no save",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "raised AttributeError: 'Partial'",
        "",
        STORED,
    ),
    Row(
        "to_native raises for a load",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError: full",
        "",
        LOADED,
    ),
    Row(
        "load raises", "load", raises(OSError("busy")), "error", "raised OSError: busy", "", LOADED
    ),
    Row(
        "no load",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "no attribute 'load'",
        "",
        LOADED,
    ),
    Row(
        "configure raises",
        "configure",
        raises(TypeError("frozen")),
        "error",
        "raised TypeError: frozen",
        "",
        LIVE,
    ),
    Row(
        "no configure",
        "layer",
        lambda build, *a: Partial(build(*a)),
        "error",
        "no attribute 'configure'",
        "",
        LIVE,
    ),
    Row("configure does nothing", "configure", returns(None), "output", "", "output[", LIVE),
    Row(
        "fold raises",
        "fold",
        raises(ValueError("no")),
        "error",
        "raised ValueError: no",
        "no error",
        FOLDING,
    ),
    Row(
        "to_native raises for a fold",
        "to_native",
        raises(OSError("full")),
        "error",
        "raised OSError",
        "",
        FOLDING,
    ),
    Row(
        "fold gives None",
        "fold",
        returns(None),
        "folded_weight",
        "fold returned NoneType; expected 2 tensors",
        "a folded_weight of shape (2, 1, 2, 1)",
        FOLDING,
    ),
    Row(
        "fold gives a weight alone",
        "fold",
        lambda fold, *a: fold(*a)[0],
        "folded_bias",
        "fold returned ndarray; expected 2 tensors",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold gives three tensors",
        "fold",
        lambda f, *a: (*f(*a), X),
        "folded_bias",
        "expected 2 tensors",
        "",
        FOLDING,
    ),
    Row(
        "fold gives no bias",
        "fold",
        lambda fold, *a: (fold(*a)[0], None),
        "folded_bias",
        "None",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold gives a bias of four dimensions",
        "fold",
        lambda fold, *a: (fold(*a)[0], fold(*a)[1].reshape(1, -1, 1, 1)),
        "folded_bias",
        "shape (1, 2, 1, 1), dtype float32",
        "a folded_bias of shape (2,)",
        FOLDING,
    ),
    Row(
        "fold swaps the axes of the weight",
        "fold",
        lambda fold, *a: (fold(*a)[0].swapaxes(0, 1), fold(*a)[1]),
        "folded_weight",
        "shape (1, 2, 2, 1)",
        "a folded_weight of shape (2, 1, 2, 1)",
        FOLDING,
    ),
    Row(
        "fold changes the layer",
        "layer",
        moves("weight", "fold"),
        "weight",
        "[2., 2.]",
        "weight = [1., 1.]",
        FOLDING,
    ),
)


def _with(layer: Layer, **members: object) -> Layer:
    for name, member in members.items():
        setattr(layer, name, member)
    return layer


class Partial:
    """A layer without resets."""

    def __init__(self, layer: Layer) -> None:
        self.train, self.forward, self.state = layer.train, layer.forward, layer.state


def _id_of(row: Row) -> str:
    return row.id


@pytest.mark.parametrize("row", STRANGE, ids=_id_of)
def test_a_strange_answer_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    discrepancies = check(row.case, spoilt(row.member, row.how))
    found = next((d for d in discrepancies if d.observable == row.observable), None)
    assert found, discrepancies
    assert row.got in found.got
    assert row.expected in found.expected


@pytest.mark.parametrize(
    "case", [TRAINING, INFERENCE, MODES, RESETS, CUMULATIVE, HUGE, STORED, LOADED, LIVE, FOLDING]
)
def test_the_reference_itself_gives_no_discrepancy(case: Case) -> None:
    assert check(case, Reference()) == []


# Gradients ---------------------------------------------------------------------------------------------

DY = X[::-1].copy()
GRADIENT = Case(Config(2), None, (Forward(X, DIFFERENTIABLE), Backward(DY)))
OF_INPUT = Case(Config(2), None, (Forward(X, ("input",)), Backward(DY)))
TWICE = Case(
    Config(2),
    None,
    (Forward(X, DIFFERENTIABLE), DoubleBackward(DY, X, X[0, :, 0, 0], X[1, :, 0, 0])),
)
OF_GRADIENTS = (*GRADIENTS, *DOUBLE_GRADIENTS, "gradient_form", "handed", "output", *STATE_FIELDS)


def judged(case: Case, backend: Backend) -> list[Discrepancy]:
    return judge(case, play(case, backend), OF_GRADIENTS, Accuracy("two-pass")).discrepancies


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

        return _with(
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

    return _with(layer, backward=losing)


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


@pytest.mark.parametrize(
    "row",
    [replace(row, case=GRADIENT) if row.case is TRAINING else row for row in STRANGE_GRADIENTS],
    ids=_id_of,
)
def test_a_strange_gradient_becomes_a_discrepancy_with_a_clear_sentence(row: Row) -> None:
    discrepancies = judged(row.case, spoilt(row.member, row.how))
    found = next((d for d in discrepancies if d.observable == row.observable), None)
    assert found, discrepancies
    assert row.got in found.got
    assert row.expected in found.expected
    assert found.step == (0 if row.id.startswith(("record", "no backward", "to_native")) else 1)


@pytest.mark.parametrize("case", [GRADIENT, OF_INPUT, TWICE])
def test_the_gradients_of_the_reference_give_no_discrepancy(case: Case) -> None:
    assert judged(case, Reference()) == []


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
        return _with(
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


# The same tensor once more -----------------------------------------------------------------------------


def handed_over(*steps: Step) -> list[int]:
    """Number the native tensors that the forwards of a case were handed, in the order in which they first appear."""
    met: list[Array] = []

    def forward(original: Callable[..., Any], x: Array, *wrt: object) -> Any:
        met.append(x)
        return original(x, *wrt)

    def build(original: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = original(*arguments)
        return _with(
            layer, forward=partial(forward, layer.forward), record=partial(forward, layer.record)
        )

    play(Case(Config(2), None, steps), spoilt("layer", build))
    different = list({id(x): x for x in met}.values())
    return [next(i for i, other in enumerate(different) if other is x) for x in met]


LAID = PLACED["channels_last"](X.repeat(2, axis=3))


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        pytest.param((Forward(X), Forward(X)), [0, 0], id="the same array"),
        pytest.param(
            (Forward(X), Forward(X.copy()), Forward(X + 0)), [0, 0, 0], id="an equal array"
        ),
        pytest.param(
            (Forward(X), Eval(), ResetParameters(), Forward(X)),
            [0, 0],
            id="with other steps between",
        ),
        pytest.param(
            (Forward(X, ("input",)), Backward(X), Forward(X), Forward(X, ("bias",))),
            [0, 0, 0],
            id="recorded or not",
        ),
        pytest.param((Forward(X), Forward(X + 1)), [0, 1], id="other values"),
        pytest.param((Forward(X), Forward(X[:1])), [0, 1], id="another shape"),
        pytest.param(
            (Forward(0 * X), Forward(-0 * X), Forward(-(0 * X))),
            [0, 0, 1],
            id="another sign of zero",
        ),
        pytest.param((Forward(LAID), Forward(LAID.copy("C"))), [0, 1], id="other strides"),
        pytest.param((Forward(X), Forward(X.astype(np.float64))), [0, 1], id="another dtype"),
        pytest.param((Forward(X), Forward(X + 1), Forward(X)), [0, 1, 2], id="another in between"),
    ],
)
def test_an_equal_input_is_handed_over_as_the_same_native_tensor_and_no_other_is(
    steps: tuple[Step, ...], numbers: list[int]
) -> None:
    assert handed_over(*steps) == numbers


def test_an_input_that_was_handed_over_twice_is_seen_to_change_on_each_step_that_follows() -> None:
    case = replace(TRAINING, steps=(Forward(X), Forward(X)))
    found = judge(
        case, play(case, spoilt("forward", mutates)), ["handed"], Accuracy()
    ).discrepancies
    assert [(d.observable, d.step) for d in found] == [("handed", 0), ("handed", 1)]


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_outside_the_domain_of_the_bounds_an_output_that_is_not_finite_is_no_discrepancy(
    odd: float,
) -> None:
    assert check(HUGE, spoilt("forward", lambda f, x: f(x) * 0 + np.float32(odd))) == []


def test_a_layer_whose_state_is_lost_gets_no_further_step() -> None:
    backend = spoilt("state", lambda state: {} if state().num_batches_tracked else state())
    observation = play(TRAINING, backend)
    assert isinstance(observation.initial, State)
    assert len(observation.answers) == 1


def test_no_answer_is_judged_after_an_unexpected_error() -> None:
    assert check(TRAINING, spoilt("forward", raises(KeyError("x")))) == [
        Discrepancy("error", 0, "no error", "raised KeyError: 'x'")
    ]


def test_each_step_is_given_a_private_copy_of_its_input() -> None:
    before = X.copy()
    play(TRAINING, spoilt("to_native", lambda move, array: _overwritten(move(array))))
    assert np.array_equal(before, X)


def _overwritten(array: Array) -> Array:
    array[...] = 7
    return array


def test_a_layer_is_given_a_private_copy_of_the_state() -> None:
    weight, bias, mean, var = np.ones((4, 2), np.float32)
    state = State(weight, bias, mean, var, np.array(0))
    play(
        replace(TRAINING, state=state),
        spoilt("layer", lambda build, config, held: _emptied(build, config, held)),
    )
    assert all(tensor is not None and (tensor == 1).all() for _, tensor in state.items()[:4])


def _emptied(build: Callable[..., Layer], config: Config, held: State) -> Layer:
    assert held.weight is not None
    held.weight[...] = 0
    return build(config, held)


def test_a_state_that_is_a_live_view_is_recorded_as_it_was_at_its_step() -> None:
    def live(build: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = build(*arguments)
        held: State = layer.state()
        layer.state = lambda: held

        def forward(x: Array) -> Array:
            assert held.running_mean is not None
            held.running_mean[...] += 1
            return x

        layer.forward = forward
        return _with(layer)

    answers = play(TRAINING, spoilt("layer", live)).answers
    means: list[Any] = [
        [a.before.running_mean, getattr(a.after, "running_mean", None)] for a in answers
    ]
    assert np.array_equal(means, [[[0, 0], [1, 1]], [[1, 1], [2, 2]]])


def test_an_output_in_a_buffer_that_is_used_again_is_recorded_as_it_was_at_its_step() -> None:
    buffer = np.empty_like(X)
    answers = play(TRAINING, spoilt("forward", lambda _, x: np.add(x, 0, out=buffer))).answers
    assert np.array_equal([answer.output for answer in answers], [X, X + 1])  # type: ignore[arg-type]


REPEATED = Case(Config(2), None, (Eval(), *(Forward(X),) * 2))


@pytest.mark.parametrize(
    "case", [REPEATED, printed_and_read(REPEATED)], ids=["drawn", "rebuilt from its source"]
)
def test_an_output_that_does_not_repeat_is_found_also_when_the_case_was_rebuilt(case: Case) -> None:
    signs = iter([1, 1 + 2**-20])
    backend = spoilt("forward", lambda f, x: f(x) * np.float32(next(signs)))
    verdict = judge(case, play(case, backend), ["repetition"], Accuracy("two-pass"))
    assert [(d.observable, d.step) for d in verdict.discrepancies] == [("repetition", 2)]


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (X[0], "a ValueError, since the input is 3-dimensional, not 4-dimensional (N, C, H, W)"),
        (X[:, :1], "a ValueError or RuntimeError, since the input has 1 channels, the layer 2"),
        (X[:1, :, :1], "a ValueError, since batch statistics need more than one value per channel"),
    ],
)
def test_an_input_that_should_have_been_refused_is_a_discrepancy_that_says_why(
    x: Array, reason: str
) -> None:
    accepting = spoilt("forward", lambda _, x: x.copy())
    assert check(Case(Config(2), None, (Forward(x),)), accepting) == [
        Discrepancy("refusal", 0, reason, "an output and no error")
    ]
    confused = spoilt("forward", raises(KeyError("shape")))
    assert check(Case(Config(2), None, (Forward(x),)), confused) == [
        Discrepancy("refusal", 0, reason, "raised KeyError: 'shape'")
    ]


def test_a_warning_is_no_answer() -> None:
    class Warns(Reference):
        def to_native(self, array: Array) -> Array:
            warnings.warn("something to say", RuntimeWarning, stacklevel=1)
            return array

    case = Case(Config(1), None, (Forward(np.ones((2, 1, 1, 1), np.float32)),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(case, Warns()) == []


NAN_BITS = {
    "float16": (0x7E00, 0x7C01),
    "bfloat16": (0x7FC0, 0x7F81),
    "float32": (0x7FC00000, 0x7F800001),
}
"""A quiet NaN and a signaling one."""


@pytest.mark.parametrize("observable", OBSERVABLES)
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [pytest.param(name, b, id=f"{name} {b:x}") for name, pair in NAN_BITS.items() for b in pair],
)
def test_nan_is_judged_without_a_warning(dtype: str, bits: int, observable: str) -> None:
    kind = np.dtype(dtype)
    nan = np.array([bits, bits], f"u{kind.itemsize}").view(kind)

    def answers(forward: Callable[[Array], Array], x: Array) -> Array:
        return np.broadcast_to(nan[:1], forward(x).shape)

    def recorded(record: Callable[..., Any], x: Array, wrt: tuple[str, ...]) -> tuple[Array, Any]:
        y, kept = record(x, wrt)
        return np.broadcast_to(nan[:1], y.shape), kept

    def holds(build: Callable[..., Layer], *arguments: object) -> Layer:
        layer: Any = build(*arguments)
        state = partial(after_a_batch(running_mean=nan, running_var=nan), layer.state)
        return _with(
            layer,
            forward=partial(answers, layer.forward),
            record=partial(recorded, layer.record),
            backward=partial(gradients, Gradients, layer.backward),
            double_backward=partial(gradients, DoubleGradients, layer.double_backward),
            state=state,
        )

    def gradients(wrap: Callable[..., Any], backward: Callable[..., Any], *arguments: Any) -> Any:
        return wrap(*(np.broadcast_to(nan[:1], a.shape) for a in backward(*arguments)))

    x = X.astype(kind)
    steps: tuple[Step, ...] = (
        Forward(x, DIFFERENTIABLE),
        *(Backward(dy) for dy in (x, x, x + x)),
        DoubleBackward(x, x, x[0, :, 0, 0], x[1, :, 0, 0]),
        Eval(),
        Forward(x),
    )
    case = Case(Config(2, dtype=dtype), None, steps)
    observation = play(case, spoilt("layer", holds))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(case, observation, [observable], Accuracy())
    found = bool(verdict.discrepancies)
    statistics = ("running_mean", "running_var", "running_statistics_kept")
    of_gradients = (*GRADIENTS, *DOUBLE_GRADIENTS, "gradient_linearity", "gradient_sums")
    assert found is (observable in ("output", "numbers", "centred", *statistics, *of_gradients))
