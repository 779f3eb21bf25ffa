"""The reference layer behaves as torch.nn.BatchNorm2d is documented."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec import BatchNorm2d, Case, Config
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.strategies import (
    PARAMETERS,
)
from tests.common import examples
from tests.rational import (
    batch_statistics,
    drawn,
    first,
    fractions,
)
from tests.reference_layers import assert_same_state, batch, loaded, used_layer


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
    )  # the old values must have no weight
    for numbers in batches:
        layer(batch(*numbers, dtype="float64"))
    statistics = [batch_statistics(fractions(np.array([numbers]))) for numbers in batches]
    for name, position in (("running_mean", 0), ("running_var", 2)):
        wanted = sum(s[position][0, 0] for s in statistics) / len(batches)
        magnitude = max(abs(s[position][0, 0]) for s in statistics)
        # Each update rounds once, by 2**-53 of a number no larger than the largest statistic.
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
def test_without_strict_the_tensors_of_the_state_are_loaded_and_the_others_stay(
    names: tuple[str, ...], extra: dict[str, Array]
) -> None:
    layer, before, fresh = used_layer(), used_layer().state_dict(), BatchNorm2d(2).state_dict()
    some = {name: fresh[name] for name in names}
    layer.load_state_dict(some | extra, strict=False)
    assert_same_state(layer, before | some)


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
