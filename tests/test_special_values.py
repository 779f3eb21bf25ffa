"""NaN, infinity and −0.0 show where they belong and nowhere else; threads do not mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from threading import Barrier
from typing import Any, ClassVar

import numpy as np
import pytest

from bn_spec import Backend, Capabilities, Case, Config, State
from bn_spec.backend.adapters.reference_backend import Reference, reference
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.steps import DIFFERENTIABLE, Backward, Eval, Forward, Step
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Verdict
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen
from bn_spec.specimens.kernel import Kernel
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.property import PROPERTIES

import_module("conformance.test_det")

NAN, INF = np.nan, np.inf
SPECIALS = (NAN, INF, -INF, -0.0)
PLACE = (0, 1, 0, 1)
"""Index of the special value: in channel 1 of two."""

CONFIG = Config(2, eps=0.5, momentum=0.25)
X = np.array([[1, 3, 4, 0.5, 0, 2], [7, -5, 3, 2, 6, 8]]).reshape(2, 2, 1, 3)
DY = np.array([[1, -1, 2, 3, 0, 1], [0.5, 2, -4, 1, 1, -2]]).reshape(X.shape)
DATA = ("output", "running_mean", "running_var")


def with_special(array: Array, value: float) -> Array:
    spoilt = array.copy()
    spoilt[PLACE] = value
    return spoilt


def case_of(mode: str, value: float, dtype: str = "float32", config: Config = CONFIG) -> Case:
    """Return a case whose last two steps differ by a special value in one element."""
    row = DTYPES[dtype]
    x, dy = X.astype(row.data.dtype), DY.astype(row.data.dtype)
    tensors = np.array([[2, -3], [1, 5], [1, -2], [3, 0.25]]).astype(row.parameters.dtype)
    weight, bias, mean, var = tensors
    state = State(weight, bias, mean, var, np.array(4))
    steps: dict[str, tuple[Step, ...]] = {
        "training": (Forward(x), Forward(with_special(x, value))),
        "eval": (Eval(), Forward(x), Forward(with_special(x, value))),
        "backward": (Forward(x, DIFFERENTIABLE), Backward(dy), Backward(with_special(dy, value))),
        "backward in eval": (
            Eval(),
            Forward(x, DIFFERENTIABLE),
            Backward(dy),
            Backward(with_special(dy, value)),
        ),
    }
    return Case(replace(config, dtype=dtype), state, steps[mode])


MODES = ("training", "eval", "backward", "backward in eval")
each_mode = pytest.mark.parametrize("mode", MODES)


SOUND: list[Backend] = [
    reference,
    *(s for s in SPECIMENS.values() if s.sound and s.capabilities.normalises_by_batch),
]
"""Sound backends. Where running statistics normalise, NaN also shows in later batches."""


def judged(case: Case, backend: Backend, *observables: str) -> Verdict:
    return judge(case, play(case, backend), observables, backend.capabilities)


# Sound kernels


@each_mode
@pytest.mark.parametrize("backend", SOUND, ids=attrgetter("name"))
def test_a_sound_kernel_neither_leaks_nor_swallows_a_special_value(backend: Any, mode: str) -> None:
    for dtype in backend.capabilities.dtypes:
        for value in SPECIALS:
            case = case_of(mode, value, dtype)
            verdict = judged(case, backend, "elsewhere", "special", *DATA)
            assert not verdict.discrepancies
            assert judged(case, backend, "elsewhere").judged > 0
            assert (judged(case, backend, "special").judged > 0) is not np.isfinite(value)


@pytest.mark.parametrize("momentum", [0.25, 1.0, 0.0, None])
def test_running_statistics_must_show_a_special_value_if_they_move(
    momentum: float | None,
) -> None:
    of_output = 1
    for value in (NAN, INF):
        verdict = judged(
            case_of("training", value, config=replace(CONFIG, momentum=momentum)),
            reference,
            "special",
        )
        assert not verdict.discrepancies
        assert verdict.judged == of_output + 2 * (momentum != 0)


@pytest.mark.parametrize("mode", ["training", "eval"])
def test_a_negative_zero_gives_what_zero_gives(mode: str) -> None:
    for backend in SOUND:
        negative, positive = (
            play(case_of(mode, zero), backend).answers[-1] for zero in (-0.0, 0.0)
        )
        for got, wanted in zip(_numbers(negative), _numbers(positive), strict=True):
            assert (got == wanted).all()


def _numbers(answer: Any) -> list[Array]:
    return [answer.output, answer.after.running_mean, answer.after.running_var]


# Faulty kernels: a reference with one wrong number in a result of a special value


class Meddling(Reference):
    """The reference, but with one wrong number in a result whenever a special value comes in."""

    def __init__(
        self, tensor: str, place: tuple[int, ...], number: float | Callable[[Any], float]
    ) -> None:
        self.name = "meddling"
        self.tensor, self.place = tensor, place
        self.number = number if callable(number) else lambda _: number

    def layer(self, config: Config, state: State | None) -> Any:
        return _MeddlingLayer(super().layer(config, state), self)

    def into(self, array: Array) -> Array:
        meddled = array.copy()
        meddled[self.place] = self.number(array[self.place])
        return meddled


def is_special(array: Array) -> bool:
    return not np.isfinite(array).all() or bool((np.signbit(array) & (array == 0)).any())


class _MeddlingLayer:
    def __init__(self, layer: Any, meddling: Meddling) -> None:
        self.inner, self.meddling = layer, meddling

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forward(self, x: Array) -> Array:
        y: Array = self.inner.forward(x)
        if not is_special(x):
            return y
        if self.meddling.tensor in STATE_FIELDS:
            tensor = getattr(self.inner.layer, self.meddling.tensor)
            setattr(self.inner.layer, self.meddling.tensor, self.meddling.into(tensor))
        return self.meddling.into(y) if self.meddling.tensor == "output" else y

    def backward(self, record: Any, dy: Array) -> Any:
        gradients = self.inner.backward(record, dy)
        if not is_special(dy):
            return gradients
        name = self.meddling.tensor.removeprefix("grad_")
        return gradients._replace(**{name: self.meddling.into(getattr(gradients, name))})


def one_bit_more(number: Any) -> float:
    return float(np.nextafter(number, np.float32(np.inf)))


OUTSIDE, INSIDE = (1, 0, 0, 2), (1, 1, 0, 2)
"""An element of the other channel, and one of the channel with the special value."""

LEAKS = [
    *(
        pytest.param("training", "output", OUTSIDE, n, id=f"{n} in another channel")
        for n in (NAN, INF, 0.0)
    ),
    pytest.param("training", "output", (0, 0, 0, 0), one_bit_more, id="one bit of another channel"),
    *(
        pytest.param("eval", "output", p, NAN, id=f"NaN in {p} in eval")
        for p in (OUTSIDE, INSIDE, (0, 1, 0, 2))
    ),
    pytest.param("eval", "output", (0, 1, 0, 0), one_bit_more, id="one bit of a neighbour in eval"),
    pytest.param("backward", "grad_input", OUTSIDE, NAN, id="NaN in a gradient of another channel"),
    pytest.param(
        "backward",
        "grad_input",
        OUTSIDE,
        one_bit_more,
        id="one bit of a gradient of another channel",
    ),
    pytest.param("backward in eval", "grad_input", OUTSIDE, NAN, id="NaN in a gradient in eval"),
    pytest.param(
        "backward in eval", "grad_input", INSIDE, one_bit_more, id="one bit of a gradient in eval"
    ),
    *(
        pytest.param(mode, name, (0,), number, id=f"{number} in {name}, {mode}")
        for mode in ("backward", "backward in eval")
        for name in ("grad_weight", "grad_bias")
        for number in (NAN, 0.0)
    ),
]
"""Mode, tensor and index of a changed number, and the number there."""


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize(("mode", "tensor", "place", "number"), LEAKS)
def test_a_leak_of_a_special_value_is_found_elsewhere(
    mode: str, tensor: str, place: tuple[int, ...], number: Any, special: float
) -> None:
    backend = Meddling(tensor, place, number)
    case = case_of(mode, special)
    (found,) = judged(case, backend, "elsewhere").discrepancies
    assert found.step == len(case.steps) - 1
    assert found.expected.startswith(f"{tensor} stays, elsewhere, ")
    assert not judged(case, backend, "special").discrepancies


SWALLOWED = [
    *(
        pytest.param("training", "output", p, id=f"output {p}")
        for p in (PLACE, INSIDE, (0, 1, 0, 0))
    ),
    pytest.param("training", "running_mean", (1,), id="running_mean"),
    pytest.param("training", "running_var", (1,), id="running_var"),
    pytest.param("eval", "output", PLACE, id="output in eval"),
    *(pytest.param("backward", "grad_input", p, id=f"grad_input {p}") for p in (PLACE, INSIDE)),
    pytest.param("backward in eval", "grad_input", PLACE, id="grad_input in eval"),
    *(
        pytest.param(mode, name, (1,), id=f"{name}, {mode}")
        for mode in ("backward", "backward in eval")
        for name in ("grad_weight", "grad_bias")
    ),
]
"""Mode, tensor and index of a number that should show the special value."""

each_swallowed = pytest.mark.parametrize(("mode", "tensor", "place"), SWALLOWED)


@each_swallowed
@pytest.mark.parametrize(
    ("special", "number"), [(NAN, 0.0), (NAN, INF), (NAN, -INF), (INF, 0.0), (-INF, 65504.0)]
)
def test_a_swallowed_special_value_is_found(
    mode: str, tensor: str, place: tuple[int, ...], special: float, number: float
) -> None:
    backend = Meddling(tensor, place, number)
    case = case_of(mode, special)
    (found,) = judged(case, backend, "special").discrepancies
    wanted = "NaN" if np.isnan(special) else "NaN or infinite"
    assert (found.step, found.got) == (len(case.steps) - 1, str(number))
    assert found.expected == f"{tensor}[{', '.join(map(str, place))}] = {wanted}"
    assert not judged(case, backend, "elsewhere").discrepancies


@each_swallowed
@pytest.mark.parametrize(
    ("special", "number"), [(INF, NAN), (INF, INF), (INF, -INF), (-0.0, 0.0), (-0.0, -0.0)]
)
def test_an_infinity_may_give_infinity_or_nan_and_a_negative_zero_any_number(
    mode: str, tensor: str, place: tuple[int, ...], special: float, number: float
) -> None:
    verdict = judged(
        case_of(mode, special), Meddling(tensor, place, number), "special", "elsewhere"
    )
    assert not verdict.discrepancies


@pytest.mark.parametrize("tensor", ["running_mean", "running_var"])
@pytest.mark.parametrize("number", [NAN, INF, one_bit_more, lambda old: old * 1.01 + 0.01])
def test_a_leak_into_running_statistics_of_another_channel_is_judged_by_their_bounds(
    tensor: str, number: Any
) -> None:
    for special in SPECIALS:
        found = judged(
            case_of("training", special), Meddling(tensor, (0,), number), *DATA
        ).discrepancies
        assert [d.observable for d in found] == ([] if number is one_bit_more else [tensor])


@pytest.mark.parametrize("number", [NAN, INF, 0.0])
def test_a_wrong_answer_to_a_negative_zero_is_judged_by_the_bounds(number: float) -> None:
    for mode in ("training", "eval"):
        (found,) = judged(
            case_of(mode, -0.0), Meddling("output", PLACE, number), *DATA
        ).discrepancies
        assert found.observable == "output"


# Cases in which there is nothing to judge


def spoilt_again(case: Case, **changes: Any) -> Case:
    last = case.steps[-1]
    return replace(case, steps=(*case.steps[:-1], replace(last, **changes)))


@pytest.mark.parametrize("mode", ["training", "eval"])
def test_elsewhere_is_not_judged_after_another_shape_or_order_or_without_a_forward_before(
    mode: str,
) -> None:
    x = with_special(X.astype(np.float32), NAN)
    in_another_order = np.asfortranarray(x)
    for changed in (x[:1], in_another_order):
        case = spoilt_again(case_of(mode, NAN), x=changed)
        assert judged(case, reference, "elsewhere").judged == 0
    alone = Case(CONFIG, None, (Forward(x),))
    assert judged(alone, reference, "elsewhere").judged == 0
    assert judged(alone, reference, "special").judged == 3


def test_elsewhere_is_not_judged_between_modes_or_between_forwards() -> None:
    x, dy = X.astype(np.float32), DY.astype(np.float32)
    steps: list[tuple[Step, ...]] = [
        (Forward(x), Eval(), Forward(x)),
        (Forward(x, DIFFERENTIABLE), Forward(x, DIFFERENTIABLE), Backward(dy, 0), Backward(dy, 1)),
        (Forward(x, DIFFERENTIABLE), Backward(dy)),
    ]
    judged_of = [judged(Case(CONFIG, None, some), reference, "elsewhere").judged for some in steps]
    assert judged_of == [0, 1, 0]  # the same input twice gives the same output


def test_elsewhere_is_not_judged_where_every_channel_has_a_special_value() -> None:
    case = case_of("training", NAN)
    assert (
        judged(
            spoilt_again(case, x=np.full(X.shape, NAN, np.float32)), reference, "elsewhere"
        ).judged
        == 0
    )


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (1, 3, 1, 2)])
def test_a_refused_input_need_not_show_a_special_value(shape: tuple[int, ...]) -> None:
    x = np.full(shape, NAN, np.float32)
    assert judged(Case(CONFIG, None, (Forward(x),)), reference, "special").judged == 0


# Threads: kernels that wait for another thread between writing and reading a workspace


class WorkspaceOfItsOwn(Kernel):
    """A kernel that passes statistics through a workspace of the layer.

    It waits there until another thread has reached the same place.
    """

    together: ClassVar = Barrier(2)
    workspace: list[tuple[Array, Array]]

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        self.workspace = []

    def moments(self, rows: Array) -> tuple[Array, Array]:
        self.workspace[:] = [super().moments(rows)]
        self.together.wait(timeout=60)
        return self.workspace[0]


class SharedWorkspace(WorkspaceOfItsOwn):
    """A kernel whose workspace is shared by all layers."""

    of_all: ClassVar[list[tuple[Array, Array]]] = []

    def __init__(self, config: Config, state: State | None) -> None:
        super().__init__(config, state)
        self.workspace = self.of_all


def threaded(kernel: type[Kernel]) -> Cell:
    claims = Capabilities(threads=True, gradients=True)
    prop = PROPERTIES["DET-02"]
    return Cell(prop, Specimen("threaded", "A kernel.", kernel, claims), "float32")


def test_a_workspace_that_layers_share_is_caught_with_another_thread_at_work() -> None:
    with pytest.raises(Violation, match="while another thread drove another layer") as found:
        threaded(SharedWorkspace).judge_threads(case_of("backward", -0.0), "output", "grad_input")
    assert found.value.finding.discrepancy.observable == "output"


def test_a_workspace_of_each_layer_is_not_caught_though_both_threads_are_at_work() -> None:
    cell = threaded(WorkspaceOfItsOwn)
    for mode in MODES[::2]:
        case = case_of(mode, -0.0)
        cell.judge_threads(case, "output", "grad_input", *STATE_FIELDS)
    assert cell.tally.judged > 0
    assert max(cell.tally.shares.values()) <= 1


def test_a_fault_in_either_thread_is_found() -> None:
    """The two threads play opposite numbers, so a kernel may be wrong in one of them alone."""
    for sign in (1, -1):

        class Wrong(WorkspaceOfItsOwn):
            def normalise(self, x: Array, mean: Array, s: Array) -> Array:
                y = super().normalise(x, mean, s)
                return y + 1 if mean[0] * sign > 0 else y  # noqa: B023 - called before the next one is made

        with pytest.raises(Violation) as found:
            threaded(Wrong).judge_threads(case_of("training", -0.0), "output")
        (x, _) = found.value.finding.case.forwards()
        assert np.sign(x[0, 0, 0, 0]) == sign
