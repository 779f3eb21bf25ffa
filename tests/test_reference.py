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
from bn_spec.bounded import Bounded
from bn_spec.bounds import OWN_ERROR, Accuracy, Model, batch_moments
from bn_spec.case import Forward
from bn_spec.config import State, initial_state
from bn_spec.dtypes import DTYPES, Array, Floats, Format
from bn_spec.expectation import expect
from bn_spec.memory import same_bits
from bn_spec.reference import Extended
from bn_spec.reference import formulas as f
from bn_spec.strategies import ABSENT, EPS, PARAMETERS, RUNNING_STYLES, SCALES, cases, shapes, values

from .common import examples

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
    return fractions(np.array([[x[i, k, p, q] for i, p, q in np.ndindex(n, h, w)] for k in range(c)]))


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
    @examples(200)
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

    @examples(150)
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

    @examples(200)
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
    def assert_rounded_once(got: Array, kind: Format, wanted: list[Any], bounded: Bounded | None) -> None:
        assert bounded is not None
        assert got.dtype == kind.dtype
        rounding = Fraction(kind.u) * (1 + Fraction(1, 2**15))  # bfloat16 is rounded to by way of float32
        for number, ball, bound in zip(got.ravel(), wanted, bounded.bound.ravel(), strict=True):
            if np.isfinite(bound):
                allowed = arb(OWN * Fraction(bound) + Fraction(kind.smallest_subnormal)) + arb(rounding) * abs(ball)
                assert abs(arb(Fraction(float(number))) - ball) <= allowed

    @examples(100)
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
                    getattr(layer, name), row.parameters, list(map(arb, numbers)), getattr(expected, name)
                )

    judge()


def loaded(case: Case) -> BatchNorm2d:
    """Return the reference layer of a case, holding its state."""
    layer = BatchNorm2d(case.config.num_features, **case.config.departures(), dtype=case.config.dtype)
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


@examples(60)
@given(st.lists(st.lists(st.integers(-999, 999), min_size=2, max_size=9), min_size=3, max_size=5))
def test_without_momentum_the_running_statistics_are_the_plain_mean_of_all_batches(batches: list[list[int]]) -> None:
    layer = BatchNorm2d(1, momentum=None, dtype="float64")
    layer.running_mean, layer.running_var = np.array([9e9]), np.array([9e9])  # what was there must have no weight
    for numbers in batches:
        layer(batch(*numbers, dtype="float64"))
    statistics = [batch_statistics(fractions(np.array([numbers]))) for numbers in batches]
    for name, position in (("running_mean", 0), ("running_var", 2)):
        wanted = sum(s[position][0, 0] for s in statistics) / len(batches)
        magnitude = max(abs(s[position][0, 0]) for s in statistics)
        # Each of the updates rounds once, to 2**-53 of a number no larger than the largest statistic.
        assert abs(Fraction(getattr(layer, name)[0]) - wanted) <= len(batches) * Fraction(1, 2**53) * magnitude


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
        (lambda s: s.update(gamma=s["weight"]), "unexpected keys: gamma; expected: weight, bias, running_mean"),
        (lambda s: s.update(running_var=np.ones(3)), r"running_var has shape \(3,\); expected \(2,\)"),
        (lambda s: s.update(num_batches_tracked=np.ones(1)), r"num_batches_tracked has shape \(1,\); expected \(\)"),
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


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.ones((2, 2, 3), np.float32), r"expected a 4-D input \(N, C, H, W\); got 3-D of shape \(2, 2, 3\)"),
        (np.ones((2, 2, 3, 1, 1), np.float32), "expected a 4-D input"),
        (np.ones((2, 3, 1, 1), np.float32), r"expected 2 channels; got shape \(2, 3, 1, 1\)"),
        (np.ones((2, 1, 1, 1), np.float32), "expected 2 channels"),
        (np.ones((2, 2, 1, 1), np.float64), "expected dtype float32; got float64"),
        (np.ones((2, 2, 1, 1), np.int32), "expected dtype float32; got int32"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_and_changes_nothing(x: Array, sentence: str, training: bool) -> None:
    layer = used_layer().train(training)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=sentence):
        layer(x)
    assert_same_state(layer, before)


@pytest.mark.parametrize("count", [0, 1])
def test_batch_statistics_of_fewer_than_two_values_are_refused_and_change_nothing(count: int) -> None:
    layer = used_layer()
    before = layer.state_dict()
    with pytest.raises(ValueError, match="batch statistics need more than 1 value per channel"):
        layer(np.ones((count, 2, 1, 1), np.float32))
    assert_same_state(layer, before)
    with pytest.raises(ValueError, match="batch statistics need more than 1 value per channel"):
        used_layer(track_running_stats=False).eval()(np.ones((count, 2, 1, 1), np.float32))


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


@examples(30)
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
