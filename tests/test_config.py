"""Configs and states: refused arguments, initial tensors, independent copies, formats of dtypes."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import STATE_FIELDS, Config, State, initial_state
from bn_spec.case.dtypes import DTYPES, dtype_named, format_named, is_floating
from bn_spec.errors import BnSpecError, ConfigError
from bn_spec.oracle.bounds import GRADES, Accuracy, Model
from tests.common import examples


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_features": 0}, "num_features is 0; allowed: a positive integer"),
        ({"num_features": -3}, "num_features is -3; allowed: a positive integer"),
        ({"num_features": 2.0}, "num_features is 2.0; allowed: a positive integer"),
        ({"num_features": "2"}, "num_features is '2'; allowed: a positive integer"),
        ({"eps": 0.0}, "eps is 0.0; allowed: a positive number"),
        ({"eps": -1e-5}, "eps is -1e-05; allowed: a positive number"),
        ({"eps": float("nan")}, "eps is nan; allowed: a positive number"),
        ({"eps": "small"}, "eps is 'small'; allowed: a positive number"),
        ({"momentum": -0.1}, "momentum is -0.1; allowed: None or a number from 0 to 1"),
        ({"momentum": 1.5}, "momentum is 1.5; allowed: None or a number from 0 to 1"),
        ({"momentum": float("nan")}, "momentum is nan; allowed: None or a number from 0 to 1"),
        ({"momentum": "slow"}, "momentum is 'slow'; allowed: None or a number from 0 to 1"),
        (
            {"dtype": "float23"},
            "dtype 'float23' is not known; known: bfloat16, float16, float32, float64,"
            " mixed_bfloat16, mixed_float16; did you mean 'float32'?",
        ),
    ],
)
def test_an_argument_that_no_layer_takes_is_refused_with_what_is_allowed(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Config(**{"num_features": 2} | arguments)
    assert str(refused.value) == sentence


def test_refusals_are_value_errors_within_the_librarys_own_tree() -> None:
    with pytest.raises(ValueError, match="num_features") as refused:
        Config(0)
    assert isinstance(refused.value, BnSpecError)


@pytest.mark.parametrize("momentum", [None, 0, 0.0, 1, 1.0, 0.5])
def test_both_ends_of_momentum_and_none_are_taken(momentum: float | None) -> None:
    assert Config(1, momentum=momentum).momentum == momentum


def test_a_config_has_pytorchs_names_order_and_defaults() -> None:
    assert Config(3) == Config(3, 1e-5, 0.1, True, True, "float32")
    assert Config(3, 1e-3, None, False, True, "float64") == Config(
        num_features=3,
        eps=1e-3,
        momentum=None,
        affine=False,
        track_running_stats=True,
        dtype="float64",
    )


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Config(3).eps = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "departures"),
    [
        (Config(3), {}),
        (Config(7, dtype="float64"), {}),
        (Config(3, momentum=None), {"momentum": None}),
        (
            Config(3, eps=1e-3, momentum=0.0, affine=False, track_running_stats=False),
            {"eps": 1e-3, "momentum": 0.0, "affine": False, "track_running_stats": False},
        ),
    ],
)
def test_departures_are_the_arguments_that_differ_from_the_defaults(
    config: Config, departures: dict[str, Any]
) -> None:
    assert config.departures() == departures


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_starts_from_ones_and_zeros_in_its_dtype(dtype: str) -> None:
    state = initial_state(Config(2, dtype=dtype))
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert same_bits(
            getattr(state, name), np.full(2, value, dtype_named(dtype).parameters.dtype)
        ), name
    assert state.num_batches_tracked is not None
    assert same_bits(state.num_batches_tracked, np.array(0, np.int64))


@pytest.mark.parametrize(
    ("config", "absent"),
    [
        (Config(2), ()),
        (Config(2, affine=False), STATE_FIELDS[:2]),
        (Config(2, track_running_stats=False), STATE_FIELDS[2:]),
        (Config(2, affine=False, track_running_stats=False), STATE_FIELDS),
    ],
)
def test_a_tensor_that_the_config_excludes_is_none(config: Config, absent: tuple[str, ...]) -> None:
    assert tuple(name for name, tensor in initial_state(config).items() if tensor is None) == absent


def test_the_items_of_a_state_are_its_fields_in_pytorchs_order() -> None:
    state = initial_state(Config(2))
    assert state.items() == [(name, getattr(state, name)) for name in STATE_FIELDS]


def test_a_copied_state_holds_the_same_bits_and_no_shared_memory() -> None:
    state = State(weight=np.array([np.nan, -0.0]), num_batches_tracked=np.array(3))
    copy = state.copy()
    for (name, original), (_, copied) in zip(state.items(), copy.items(), strict=True):
        if original is None:
            assert copied is None, name
        else:
            assert copied is not None, name
            assert same_bits(original, copied), name
            assert not np.may_share_memory(original, copied), name


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("float16", (2.0**-11, 2.0**-14, 2.0**-24, 65504.0)),
        ("bfloat16", (2.0**-8, 2.0**-126, 2.0**-133, (2 - 2.0**-7) * 2.0**127)),
        ("float32", (2.0**-24, 2.0**-126, 2.0**-149, (2 - 2.0**-23) * 2.0**127)),
        ("float64", (2.0**-53, 2.0**-1022, 2.0**-1074, (2 - 2.0**-52) * 2.0**1023)),
    ],
)
def test_a_format_has_the_constants_of_its_standard(name: str, limits: tuple[float, ...]) -> None:
    known = format_named(name)
    assert (known.u, known.smallest_normal, known.smallest_subnormal, known.largest) == limits
    assert (known.name, known.dtype) == (name, np.dtype(name))
    assert is_floating(known.dtype)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("float32", ("float32", "float32", "float32")),
        ("float64", ("float64", "float64", "float64")),
        ("mixed_float16", ("float16", "float32", "float32")),
        ("mixed_bfloat16", ("bfloat16", "float32", "float32")),
        ("float16", ("float16", "float16", "float32")),
        ("bfloat16", ("bfloat16", "bfloat16", "float32")),
    ],
)
def test_a_row_of_dtypes_names_the_formats_of_data_parameters_and_accumulation(
    name: str, formats: tuple[str, str, str]
) -> None:
    row = dtype_named(name)
    assert (row.name, (row.data.name, row.parameters.name, row.accumulation.name)) == (
        name,
        formats,
    )


@pytest.mark.parametrize(
    "dtype", [np.dtype(kind) for kind in ("int64", "bool", "uint16", "complex64", "V2")]
)
def test_a_dtype_that_is_no_real_floating_point_format_is_not_taken_for_one(
    dtype: np.dtype[Any],
) -> None:
    assert not is_floating(dtype)


def test_a_layer_without_floating_tensors_has_no_parameters_but_its_data() -> None:
    bare = Config(1, affine=False, track_running_stats=False, dtype="mixed_bfloat16")
    assert bare.arithmetic.parameters.name == "bfloat16"
    for config in (replace(bare, affine=True), replace(bare, track_running_stats=True)):
        assert config.arithmetic.parameters.name == "float32"


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("float23", "; did you mean 'float32'?"),
        ("Float64", "; did you mean 'float64'?"),
        ("quaternion", "known: bfloat16, float16, float32, float64, mixed_bfloat16, mixed_float16"),
    ],
)
def test_an_unknown_dtype_is_answered_with_the_known_ones_and_the_nearest(
    name: str, ending: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        dtype_named(name)
    assert str(refused.value).startswith(
        f"dtype {name!r} is not known; known: bfloat16, float16, float32, float64"
    )
    assert str(refused.value).endswith(ending)


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (
            {"grade": "wellford"},
            "grade 'wellford' is not known; known: textbook, two-pass, welford; did you mean 'welf",
        ),
        (
            {"summation": "pairwize"},
            "summation 'pairwize' is not known; known: any order, pairwise, wide;"
            " did you mean 'pairw",
        ),
        (
            {"statistics": "half"},
            "format of the statistics 'half' is not known; known: accumulation, parameters",
        ),
        (
            {"elementwise": "data"},
            "format of elementwise steps 'data' is not known; known: accumulation, parameters",
        ),
    ],
)
def test_an_unknown_claim_about_the_arithmetic_is_refused_with_the_nearest(
    claim: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Accuracy(**claim)
    assert str(refused.value).startswith(sentence)


@examples(100)
@given(st.sampled_from(GRADES), st.floats(0, 2.0**26))
@example("welford", 2.0**24)
@example("welford", 1.5 * 2.0**24)
def test_gamma_grows_with_the_roundings_and_is_infinite_once_they_fill_the_arithmetic(
    grade: str, roundings: float
) -> None:
    model = Model(dtype_named("float32"), 10, Accuracy(grade))
    assert model.gamma(roundings) >= roundings * 2.0**-24
    assert (model.gamma(roundings) == np.inf) == (roundings >= 2.0**24)
