"""The reference BatchNorm2d against exact rational arithmetic, and its behaviour as a layer."""

import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import BatchNorm2d, Case, Config
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, State, initial_state
from bn_spec.case.dtypes import DTYPES, Array, Floats, Format
from bn_spec.case.steps import Forward
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.bounds import OWN_ERROR, Accuracy, Model, batch_moments
from bn_spec.oracle.expectation import expect
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f
from bn_spec.strategies import (
    ABSENT,
    EPS,
    PARAMETERS,
    RUNNING_STYLES,
    SCALES,
    cases,
    shapes,
    values,
)
from tests.common import examples
from tests.convolution import correlated

Exact = npt.NDArray[Any]
"""An array of fractions: NumPy applies Python's exact operators to each of them."""

OWN = Fraction(OWN_ERROR) - 1
TWO_PASS = Accuracy("two-pass")
"""The share of every bound that pays for the reference's own error."""

PRECISION = 400
"""Bits in which flint brackets the square roots; no input below cancels more than half of them."""

FAR = {"float32": (60, -60, -140), "float64": (300, -300)}
"""Binary exponents of the scale, beyond those usually drawn, whose squares leave float32 or strain float64."""

TINY_EPS = {"float32": (1e-30,), "float64": (1e-30, 1e-280)}
"""Both by the format of accumulation."""

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def drawn(dtype: str, **choices: Any) -> st.SearchStrategy[Case]:
    """Cases whose data are as ill-conditioned as any that the suite draws, and more; small enough for fractions."""
    accumulation = DTYPES[dtype].accumulation.name
    arguments: dict[str, Any] = {
        "shape": shapes("tiny", "different", "small"),
        "value": values(scales=(*SCALES, *FAR[accumulation])),
        "eps": (*EPS, *TINY_EPS[accumulation]),
        "running": (*RUNNING_STYLES, ABSENT),
    }
    return cases(dtype=dtype, **arguments | choices)


def fractions(numbers: Array) -> Exact:
    exact: Exact = np.vectorize(Fraction, otypes=[object])(numbers.astype(np.float64))
    return exact


def exact(number: Extended) -> Exact:
    total: Exact = fractions(number.hi) + fractions(number.lo)
    return total


def channel_rows(x: Array) -> Exact:
    """Lay (N, C, H, W) out as fractions of shape (C, n), an index at a time."""
    n, c, h, w = x.shape
    return fractions(
        np.array([[x[i, k, p, q] for i, p, q in np.ndindex(n, h, w)] for k in range(c)])
    )


def batch_statistics(rows: Exact) -> tuple[Exact, Exact, Exact]:
    """Mean, biased and unbiased variance of each row of fractions, by their definitions."""
    n = rows.shape[1]
    mean = rows.sum(axis=1, keepdims=True) / n
    squares = ((rows - mean) ** 2).sum(axis=1, keepdims=True)
    return mean, squares / n, squares / max(n - 1, 1)


def column(tensor: Array | None, default: int, like: Exact) -> Exact:
    return like * 0 + default if tensor is None else fractions(tensor)[:, np.newaxis]


def arb(number: Fraction) -> Any:
    return flint.arb(flint.fmpq(number.numerator, number.denominator))


def normalised(state: State, x: Array, statistics: tuple[Exact, Exact], eps: float) -> list[Any]:
    """The exact output (x − mean) / √(var + eps) · weight + bias as balls of real numbers, in the order of ``x``."""
    mean, var = statistics
    weight, bias = column(state.weight, 1, mean), column(state.bias, 0, mean)
    roots = [arb(v + Fraction(eps)).sqrt() for v in var[:, 0]]
    centred = fractions(x) - mean.reshape(1, -1, 1, 1)
    return [
        arb(weight[index[1], 0] * centred[index]) / roots[index[1]] + arb(bias[index[1], 0])
        for index in np.ndindex(x.shape)
    ]


@pytest.fixture(autouse=True)
def _precise_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flint.ctx, "prec", PRECISION)


def statistics_used(state: State, x: Array, training: bool) -> tuple[Exact, Exact]:
    """Mean and variance that normalise ``x``: the batch's, or in eval mode the running ones where there are any."""
    mean, var, _ = batch_statistics(channel_rows(x))
    if training or state.running_mean is None:
        return mean, var
    return column(state.running_mean, 0, mean), column(state.running_var, 1, mean)


def tracked(config: Config, state: State, x: Array) -> dict[str, Exact]:
    """The exact running statistics after one more batch."""
    mean, _, unbiased = batch_statistics(channel_rows(x))
    assert state.num_batches_tracked is not None
    count = int(state.num_batches_tracked) + 1
    m = Fraction(1, count) if config.momentum is None else Fraction(config.momentum)
    return {
        "running_mean": ((1 - m) * column(state.running_mean, 0, mean) + m * mean)[:, 0],
        "running_var": ((1 - m) * column(state.running_var, 1, mean) + m * unbiased)[:, 0],
    }


def first(case: Case) -> tuple[State, Array]:
    """The state in which the layer of a case begins, and the first input."""
    return case.state or initial_state(case.config), next(case.forwards())


def assert_within_own_error(got: Extended, wanted: Exact, bound: Floats) -> None:
    assert wanted.shape == got.hi.shape == bound.shape
    error = abs(exact(got) - wanted)
    for index in zip(*np.nonzero(np.isfinite(bound)), strict=True):
        assert error[index] <= OWN * Fraction(bound[index]), index


# The formulas, before any rounding to the layer's dtype ---------------------------------------------------


@every_dtype
def test_batch_statistics_err_by_a_sliver_of_their_bounds(dtype: str) -> None:
    @examples(55)
    @given(drawn(dtype))
    def judge(case: Case) -> None:
        _, x = first(case)
        rows = f.by_channel(x)
        n = rows.hi.shape[1]
        mean, var, unbiased = batch_statistics(channel_rows(x))
        mu = f.mean(rows)
        biased = f.biased_variance(rows, mu)
        mean_abs = np.abs(rows.hi).mean(axis=1, keepdims=True)
        moments = batch_moments(Model(DTYPES[dtype], n, TWO_PASS), mu.hi, biased.hi, mean_abs)
        assert_within_own_error(mu, mean, moments.dmean)
        assert_within_own_error(biased, var, moments.dvar)
        assert_within_own_error(f.unbiased_variance(biased, n), unbiased, moments.dvar)

    judge()


@every_dtype
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_outputs_err_by_a_sliver_of_their_bounds(dtype: str, training: bool) -> None:
    judged = 0

    @examples(40)
    @given(drawn(dtype, least=2 if training else 1))
    def judge(case: Case) -> None:
        nonlocal judged
        state, x = first(case)
        if not training and state.running_mean is None and x.size == x.shape[1]:
            return
        output = expect(case.config, state, training, Forward(x), TWO_PASS).output
        assert output is not None
        wanted = normalised(state, x, statistics_used(state, x, training), case.config.eps)
        bounds = output.bound.ravel()
        for got, ball, bound in zip(exact(output.value).ravel(), wanted, bounds, strict=True):
            if np.isfinite(bound):
                judged += 1
                assert abs(arb(got) - ball) <= arb(OWN * Fraction(bound))

    judge()
    assert judged > 1000


@every_dtype
def test_running_statistics_err_by_a_sliver_of_their_bounds(dtype: str) -> None:
    judged = 0

    @examples(55)
    @given(drawn(dtype, running=RUNNING_STYLES))
    def judge(case: Case) -> None:
        nonlocal judged
        state, x = first(case)
        expected = expect(case.config, state, True, Forward(x), TWO_PASS)
        for name, wanted in tracked(case.config, state, x).items():
            bounded: Bounded = getattr(expected, name)
            judged += int(np.isfinite(bounded.bound).sum())
            assert_within_own_error(bounded.value, wanted, bounded.bound)

    judge()
    assert judged > 200


# The layer: every answer is the exact one, rounded once ---------------------------------------------------


@every_dtype
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_an_answer_of_the_layer_is_the_exact_one_rounded_once(dtype: str, training: bool) -> None:
    def assert_rounded_once(
        got: Array, kind: Format, wanted: list[Any], bounded: Bounded | None
    ) -> None:
        assert bounded is not None
        assert got.dtype == kind.dtype
        rounding = Fraction(kind.u) * (
            1 + Fraction(1, 2**15)
        )  # bfloat16 is rounded to by way of float32
        for number, ball, bound in zip(got.ravel(), wanted, bounded.bound.ravel(), strict=True):
            if np.isfinite(bound):
                allowed = arb(OWN * Fraction(bound) + Fraction(kind.smallest_subnormal)) + arb(
                    rounding
                ) * abs(ball)
                assert abs(arb(Fraction(float(number))) - ball) <= allowed

    @examples(25)
    @given(drawn(dtype))
    def judge(case: Case) -> None:
        state, x = first(case)
        layer = loaded(case).train(training)
        expected = expect(case.config, state, training, Forward(x), TWO_PASS)
        wanted = normalised(state, x, statistics_used(state, x, training), case.config.eps)
        row = case.config.arithmetic
        assert_rounded_once(layer(x), row.data, wanted, expected.output)
        if training and state.running_mean is not None:
            for name, numbers in tracked(case.config, state, x).items():
                assert_rounded_once(
                    getattr(layer, name),
                    row.parameters,
                    list(map(arb, numbers)),
                    getattr(expected, name),
                )

    judge()


def loaded(case: Case) -> BatchNorm2d:
    """Return the reference layer of a case, holding its state."""
    layer = BatchNorm2d(
        case.config.num_features, **case.config.departures(), dtype=case.config.dtype
    )
    if case.state is not None:
        layer.load_state_dict({name: a for name, a in case.state.items() if a is not None})
    return layer


# The layer as torch documents it --------------------------------------------------------------------------


def batch(*numbers: float, dtype: str = "float32") -> Array:
    """Return one channel of numbers, a sample each."""
    return np.array(numbers, dtype).reshape(-1, 1, 1, 1)


def assert_same_state(layer: BatchNorm2d, state: Mapping[str, Array]) -> None:
    now = layer.state_dict()
    assert now.keys() == state.keys()
    for name, tensor in state.items():
        assert same_bits(now[name], tensor), name


def used_layer(**arguments: Any) -> BatchNorm2d:
    """Return a layer of two channels, always the same, whose every tensor differs from its initial one."""
    layer = BatchNorm2d(2, **arguments)
    if layer.weight is not None and layer.bias is not None:
        layer.weight += 1
        layer.bias += 1
    layer(np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1))
    return layer


def test_the_constructor_has_the_signature_that_torch_documents() -> None:
    parameters = inspect.signature(BatchNorm2d).parameters.values()
    own = [(p.name, p.default) for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert own == [
        ("num_features", inspect.Parameter.empty),
        ("eps", 1e-5),
        ("momentum", 0.1),
        ("affine", True),
        ("track_running_stats", True),
    ]


def test_a_new_layer_trains_and_holds_ones_and_zeros() -> None:
    layer = BatchNorm2d(2)
    assert layer.training
    assert layer.config == Config(2)
    assert_same_state(
        layer,
        {
            "weight": np.ones(2, np.float32),
            "bias": np.zeros(2, np.float32),
            "running_mean": np.zeros(2, np.float32),
            "running_var": np.ones(2, np.float32),
            "num_batches_tracked": np.array(0),
        },
    )


def test_training_uses_the_batch_and_eval_the_running_statistics() -> None:
    layer = BatchNorm2d(1, eps=3.0, momentum=1.0)
    x = batch(-1, 1)  # mean 0, biased variance 1, unbiased variance 2
    assert layer(x).ravel().tolist() == [-0.5, 0.5]
    layer.running_mean, layer.running_var = np.array([1], np.float32), np.array([13], np.float32)
    assert layer.eval()(x).ravel().tolist() == [-0.5, 0]
    assert layer.train()(x).ravel().tolist() == [-0.5, 0.5]
    assert layer.state_dict()["running_var"].tolist() == [2]


def test_train_and_eval_return_the_layer_and_set_its_mode() -> None:
    layer = BatchNorm2d(1)
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training
    assert not layer.train(False).training


def test_eval_changes_no_state() -> None:
    layer = used_layer().eval()
    before = layer.state_dict()
    layer(np.ones((1, 2, 1, 1), np.float32))
    assert_same_state(layer, before)


def test_a_call_leaves_its_input_as_it_was() -> None:
    x = batch(1, 2, 4)
    BatchNorm2d(1)(x)
    assert same_bits(x, batch(1, 2, 4))


@examples(35)
@given(st.lists(st.lists(st.integers(-999, 999), min_size=2, max_size=9), min_size=3, max_size=5))
def test_without_momentum_the_running_statistics_are_the_plain_mean_of_all_batches(
    batches: list[list[int]],
) -> None:
    layer = BatchNorm2d(1, momentum=None, dtype="float64")
    layer.running_mean, layer.running_var = (
        np.array([9e9]),
        np.array([9e9]),
    )  # what was there must have no weight
    for numbers in batches:
        layer(batch(*numbers, dtype="float64"))
    statistics = [batch_statistics(fractions(np.array([numbers]))) for numbers in batches]
    for name, position in (("running_mean", 0), ("running_var", 2)):
        wanted = sum(s[position][0, 0] for s in statistics) / len(batches)
        magnitude = max(abs(s[position][0, 0]) for s in statistics)
        # Each of the updates rounds once, to 2**-53 of a number no larger than the largest
        # statistic.
        assert (
            abs(Fraction(getattr(layer, name)[0]) - wanted)
            <= len(batches) * Fraction(1, 2**53) * magnitude
        )


def test_the_counter_counts_training_batches_as_an_int64_scalar() -> None:
    layer = BatchNorm2d(1)
    for _ in range(3):
        layer(batch(1, 2))
        layer.eval()(batch(1, 2))
        layer.train()
    assert same_bits(layer.state_dict()["num_batches_tracked"], np.array(3, np.int64))


def test_reset_running_stats_keeps_the_parameters() -> None:
    layer = used_layer()
    before, fresh = layer.state_dict(), BatchNorm2d(2).state_dict()
    layer.reset_running_stats()
    assert_same_state(layer, fresh | {name: before[name] for name in ("weight", "bias")})


def test_reset_parameters_resets_the_whole_state() -> None:
    layer = used_layer()
    layer.reset_parameters()
    assert_same_state(layer, BatchNorm2d(2).state_dict())


def test_the_state_dict_holds_copies() -> None:
    layer = used_layer()
    for tensor in layer.state_dict().values():
        tensor[...] = 77
    assert_same_state(layer, used_layer().state_dict())


def test_a_loaded_state_is_copied() -> None:
    state = used_layer().state_dict()
    layer = BatchNorm2d(2)
    layer.load_state_dict(state)
    assert_same_state(layer, state)
    for tensor in state.values():
        tensor[...] = 77
    assert_same_state(layer, used_layer().state_dict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("bias"), "missing keys: bias; expected: weight, bias, running_mean"),
        (
            lambda s: s.update(gamma=s["weight"]),
            "unexpected keys: gamma; expected: weight, bias, running_mean",
        ),
        (
            lambda s: s.update(running_var=np.ones(3)),
            r"running_var has shape \(3,\); expected \(2,\)",
        ),
        (
            lambda s: s.update(num_batches_tracked=np.ones(1)),
            r"num_batches_tracked has shape \(1,\); expected \(\)",
        ),
        (lambda s: s.update(num_batches_tracked="many"), "invalid literal"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_of_it_loaded(
    change: Callable[[dict[str, Array]], object], sentence: str
) -> None:
    layer = BatchNorm2d(2)
    before = layer.state_dict()
    state = used_layer().state_dict()
    change(state)
    with pytest.raises(ValueError, match=sentence):
        layer.load_state_dict(state)
    assert_same_state(layer, before)


@pytest.mark.parametrize(
    "extra", [{}, {"gamma": np.ones(7)}], ids=["alone", "beside one that no layer has"]
)
@pytest.mark.parametrize(
    "names", [(name,) for name in STATE_FIELDS] + [STATE_FIELDS[:2], STATE_FIELDS, ()], ids=str
)
def test_without_strict_the_tensors_that_are_given_are_loaded_and_the_others_stay(
    names: tuple[str, ...], extra: dict[str, Array]
) -> None:
    layer, before, fresh = used_layer(), used_layer().state_dict(), BatchNorm2d(2).state_dict()
    given = {name: fresh[name] for name in names}
    layer.load_state_dict(given | extra, strict=False)
    assert_same_state(layer, before | given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"running_var": np.ones(3)}, r"running_var has shape \(3,\); expected \(2,\)"),
        ({"weight": np.ones(())}, r"weight has shape \(\); expected \(2,\)"),
        (
            {"bias": np.ones((2, 1)), "gamma": np.ones(7)},
            r"bias has shape \(2, 1\); expected \(2,\)",
        ),
        ({"num_batches_tracked": "many"}, "invalid literal"),
    ],
    ids=["longer", "a number", "a column", "text"],
)
def test_without_strict_a_tensor_that_does_not_fit_is_refused_and_nothing_of_the_others_loaded(
    change: dict[str, Array], sentence: str
) -> None:
    layer = used_layer()
    others = {
        name: a
        for name, a in BatchNorm2d(2).state_dict().items()
        if name in ("weight", "running_mean")
    }
    with pytest.raises(ValueError, match=sentence):
        layer.load_state_dict(others | change, strict=False)
    assert_same_state(layer, used_layer().state_dict())


def test_a_layer_goes_on_from_the_counter_that_was_loaded() -> None:
    layer = BatchNorm2d(1, momentum=None)
    layer.load_state_dict(
        {"num_batches_tracked": np.array(2), "running_mean": np.array([3.0])}, strict=False
    )
    layer(batch(5, 7))
    assert layer.state_dict()["running_mean"].tolist() == [4]  # 3 + (6 - 3) / 3
    assert same_bits(layer.state_dict()["num_batches_tracked"], np.array(3))


def test_a_loaded_tensor_takes_the_dtype_of_the_layer() -> None:
    layer = BatchNorm2d(2)
    layer.load_state_dict(
        {name: a.astype(np.float64) for name, a in used_layer().state_dict().items()}
    )
    assert_same_state(layer, used_layer().state_dict())


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (
            np.ones((2, 2, 3), np.float32),
            r"expected a 4-D input \(N, C, H, W\); got 3-D of shape \(2, 2, 3\)",
        ),
        (np.ones((2, 2, 3, 1, 1), np.float32), "expected a 4-D input"),
        (np.ones((2, 3, 1, 1), np.float32), r"expected 2 channels; got shape \(2, 3, 1, 1\)"),
        (np.ones((2, 1, 1, 1), np.float32), "expected 2 channels"),
        (np.ones((2, 2, 1, 1), np.float64), "expected dtype float32; got float64"),
        (np.ones((2, 2, 1, 1), np.int32), "expected dtype float32; got int32"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_and_changes_nothing(
    x: Array, sentence: str, training: bool
) -> None:
    layer = used_layer().train(training)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=sentence):
        layer(x)
    assert_same_state(layer, before)


def test_batch_statistics_of_a_single_value_are_refused_and_change_nothing() -> None:
    layer = used_layer()
    before = layer.state_dict()
    with pytest.raises(ValueError, match="batch statistics need more than 1 value per channel"):
        layer(np.ones((1, 2, 1, 1), np.float32))
    assert_same_state(layer, before)
    with pytest.raises(ValueError, match="batch statistics need more than 1 value per channel"):
        used_layer(track_running_stats=False).eval()(np.ones((1, 2, 1, 1), np.float32))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (3, 2, 0, 4), (3, 2, 4, 0), (0, 2, 0, 0)], ids=str)
def test_an_empty_batch_is_answered_as_empty_counts_for_nothing_and_has_gradients_of_zero(
    shape: tuple[int, ...], arguments: dict[str, Any], training: bool
) -> None:
    layer = used_layer(**arguments).train(training)
    empty = np.zeros(shape, np.float32)
    y, record = layer.record(empty)
    assert same_bits(y, empty)
    gradients: Any = layer.backward(record, empty)
    dx, dweight, dbias = gradients
    assert same_bits(dx, empty)
    zeros = np.zeros(2, np.float32)
    assert all(
        gradient is None if layer.weight is None else same_bits(gradient, zeros)
        for gradient in (dweight, dbias)
    )
    assert_same_state(layer, used_layer(**arguments).state_dict())


def test_in_eval_mode_a_single_value_per_channel_is_normalised() -> None:
    assert BatchNorm2d(1, eps=3.0).eval()(batch(4)).ravel().tolist() == [2]


def test_without_tracking_eval_uses_the_statistics_of_the_batch() -> None:
    layer = BatchNorm2d(1, eps=3.0, track_running_stats=False).eval()
    assert layer(batch(9, 11)).ravel().tolist() == [-0.5, 0.5]
    assert layer.state_dict().keys() == {"weight", "bias"}
    layer.train()(batch(9, 11))
    layer.reset_running_stats()
    assert layer.state_dict().keys() == {"weight", "bias"}


def test_without_affine_the_normalised_values_are_the_output() -> None:
    layer = BatchNorm2d(1, eps=3.0, affine=False)
    assert layer(batch(9, 11)).ravel().tolist() == [-0.5, 0.5]
    assert layer.state_dict().keys() == {"running_mean", "running_var", "num_batches_tracked"}


@examples(20)
@given(drawn("float64", parameters=tuple(PARAMETERS)))
def test_channels_do_not_depend_on_each_other(case: Case) -> None:
    _, x = first(case)
    whole = loaded(case)(x)
    for channel in range(x.shape[1]):
        changed = np.full_like(x, 3.0)
        changed[:, channel] = x[:, channel]
        assert same_bits(loaded(case)(changed)[:, channel], whole[:, channel])


def test_data_that_are_not_finite_are_answered_without_a_warning() -> None:
    y = BatchNorm2d(2)(np.array([[1, np.inf], [2, np.nan]], np.float32).reshape(2, 2, 1, 1))
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()


# Folding into a convolution -------------------------------------------------------------------------------

QUARTER = {"running_mean": np.array([1]), "running_var": np.array([13])}
"""With eps 3, a layer with these subtracts 1 and divides by 4."""


@pytest.mark.parametrize(
    ("affine", "bias", "weights", "shift"),
    [
        pytest.param(True, 9, [1, -2.5], 9, id="affine and a bias"),  # (9 - 1) / 4 * 2 + 5
        pytest.param(True, None, [1, -2.5], 4.5, id="affine without a bias"),  # (0 - 1) / 4 * 2 + 5
        pytest.param(False, 9, [0.5, -1.25], 2, id="a bias without affine"),
        pytest.param(False, None, [0.5, -1.25], -0.25, id="neither"),
    ],
)
def test_a_convolution_takes_scale_and_shift_of_the_layer(
    affine: bool, bias: float | None, weights: list[float], shift: float
) -> None:
    layer = BatchNorm2d(1, eps=3.0, affine=affine)
    layer.load_state_dict(QUARTER | {"weight": np.array([2]), "bias": np.array([5])}, strict=False)
    kernel = np.array([2, -5], np.float32).reshape(1, 2, 1, 1)
    weight, moved = layer.fold(kernel, None if bias is None else np.array([bias], np.float32))
    assert same_bits(weight, np.array(weights, np.float32).reshape(1, 2, 1, 1))
    assert same_bits(moved, np.array([shift], np.float32))


@every_dtype
def test_a_folded_convolution_is_the_exact_one_rounded_once(dtype: str) -> None:
    kind, judged = DTYPES[dtype].data, 0

    def assert_rounded_once(got: Array, wanted: list[Any], products: list[Any]) -> None:
        nonlocal judged
        assert got.dtype == kind.dtype
        rounding = Fraction(kind.u) * (
            1 + Fraction(1, 2**15)
        )  # bfloat16 is rounded to by way of float32
        for number, ball, product in zip(got.ravel(), wanted, products, strict=True):
            if abs(ball) < arb(Fraction(kind.largest) / 2):
                judged += 1
                own = arb(Fraction(kind.smallest_subnormal)) + arb(Fraction(1, 2**90)) * abs(
                    product
                )
                assert abs(arb(Fraction(float(number))) - ball) <= own + arb(rounding) * abs(ball)

    @examples(25)
    @given(drawn(dtype, value=values(), eps=EPS, running=RUNNING_STYLES))
    def judge(case: Case) -> None:
        (state, x), eps = first(case), case.config.eps
        mean, var = statistics_used(state, x, training=False)
        weight, bias = loaded(case).fold(x.swapaxes(0, 1), x[0, :, 0, 0])
        unshifted, of_bias = State(weight=state.weight), x[:1, :, :1, :1]
        scaled = normalised(unshifted, x, (0 * mean, var), eps)
        assert_rounded_once(weight.swapaxes(0, 1), scaled, scaled)
        shifted, products = (
            normalised(held, of_bias, (mean, var), eps) for held in (state, unshifted)
        )
        assert_rounded_once(bias, shifted, products)

    judge()
    assert judged > 200


@pytest.mark.parametrize("arguments", [{}, {"affine": False}, {"eps": 1.0}], ids=str)
def test_a_folded_convolution_does_what_the_convolution_and_the_layer_do(
    arguments: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    layer = BatchNorm2d(3, dtype="float64", **arguments)
    weight, bias, mean, var = rng.normal(size=(4, 3))
    state = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": 1 + var**2}
    layer.load_state_dict(state, strict=False)
    x, weight, bias = (
        rng.normal(size=(2, 2, 5, 4)),
        rng.normal(size=(3, 2, 3, 2)),
        rng.normal(size=3),
    )
    both = layer.eval()(correlated(x, weight, bias))
    assert np.abs(correlated(x, *layer.fold(weight, bias)) - both).max() < 1e-13
    without = layer(correlated(x, weight, 0 * bias))
    assert np.abs(correlated(x, *layer.fold(weight)) - without).max() < 1e-13


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_folding_changes_neither_layer_nor_convolution_and_is_the_same_in_both_modes(
    training: bool,
) -> None:
    layer = used_layer().train(training)
    weight, bias = np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1), np.ones(2, np.float32)
    folded = layer.fold(weight, bias)
    assert_same_state(layer, used_layer().state_dict())
    assert layer.training is training
    assert weight.ravel().tolist() == [*range(8)]
    assert bias.tolist() == [1, 1]
    assert all(
        same_bits(a, b) for a, b in zip(folded, used_layer().eval().fold(weight, bias), strict=True)
    )


@pytest.mark.parametrize("arguments", [{}, {"affine": False}], ids=["affine", "no affine"])
def test_a_layer_without_running_statistics_cannot_be_folded(arguments: dict[str, Any]) -> None:
    layer = BatchNorm2d(2, track_running_stats=False, **arguments)
    with pytest.raises(
        ValueError, match="only a layer that tracks running statistics can be folded"
    ):
        layer.fold(np.ones((2, 1, 1, 1), np.float32))


def test_statistics_that_are_not_finite_are_folded_without_a_warning() -> None:
    layer = BatchNorm2d(3)
    state = {"running_var": np.array([np.inf, np.nan, 1]), "running_mean": np.array([0, 0, np.inf])}
    layer.load_state_dict(state, strict=False)
    weight, bias = layer.fold(np.full((3, 1, 1, 1), 3e38, np.float32))
    assert weight.ravel().tolist() == [
        0,
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(3e38, rel=1e-4),
    ]
    assert np.isnan(bias).tolist() == [False, True, False]
