"""Drawn cases keep to the claims of the backend and to the choices of the property."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bn_spec import Capabilities, Case, Config, State
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.arrays import take_apart
from bn_spec.case.dtypes import DTYPES
from bn_spec.strategies import ABSENT, RUNNING_STYLES, among, cases, values
from tests.draws import drawn, sample, tensor
from tests.process import python


def test_nothing_unclaimed_is_drawn() -> None:
    claims = Capabilities(
        affine_off=False, tracking_off=False, cumulative_momentum=False, layouts=("contiguous",)
    )
    for case in drawn(cases(claims=claims, running=(*RUNNING_STYLES, ABSENT)), 300):
        assert case.config.affine
        assert case.config.track_running_stats
        assert case.config.momentum is not None
        assert all(x.flags.c_contiguous for x in case.forwards())


def test_choices_are_kept_to() -> None:
    strategy = cases(
        dtype="float64",
        eps=(0.5,),
        momentum=(0.25, None),
        parameters=("equal",),
        running=("distinct",),
        shape=among([(1, 3, 1, 1)]),
        value=values(("constant",), (3,), (1.0,)),
        least=5,
        change=lambda x: -x,
    )
    for case in drawn(strategy, 50):
        config, (x,) = case.config, case.forwards()
        assert config == Config(3, 0.5, config.momentum, dtype="float64")
        assert config.momentum in (0.25, None)
        assert x.shape == (5, 3, 1, 1)
        assert x.dtype == np.float64
        assert (tensor(case, "weight").tolist(), tensor(case, "bias").tolist()) == (
            [3.0] * 3,
            [2.0] * 3,
        )
        assert tensor(case, "running_mean").tolist() == [2.0, 3.0, 4.0]
        assert np.ptp(x, axis=0).max() == 0


def test_running_statistics_are_finite_unless_absurd_ones_are_asked_for() -> None:
    def finite(case: Case) -> bool:
        return all(
            np.isfinite(tensor(case, name)).all() for name in ("running_mean", "running_var")
        )

    assert all(map(finite, sample()))
    assert not any(map(finite, drawn(cases(running=("absurd",)), 50)))


def test_inputs_are_finite_and_of_the_dtype_asked_for() -> None:
    for dtype, row in DTYPES.items():
        for case in drawn(cases(dtype=dtype), 100):
            assert all(x.dtype == row.data.dtype and np.isfinite(x).all() for x in case.forwards())


def test_a_layer_that_stays_as_built_is_given_no_state() -> None:
    assert {case.state for case in drawn(cases(built=True), 100)} == {None}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_has_gaps_where_they_are_asked_for_and_claimed_alone(dtype: str) -> None:
    def steps(claims: Capabilities, strided: bool = False) -> set[int]:
        met = drawn(cases(dtype=dtype, claims=claims, running=("distinct",), strided=strided), 30)
        tensors = [
            a for case in met if case.state for a in case.state.tensors().values() if a.size > 1
        ]
        return {take_apart(a).strides[0] for a in tensors}

    assert steps(EVERYTHING, strided=True) == {1, 2, 3}
    assert steps(EVERYTHING) == steps(replace(EVERYTHING, strided_state=False), strided=True) == {1}


def test_a_state_with_gaps_holds_the_same_numbers() -> None:
    for case in drawn(cases(parameters=("distinct",), running=("distinct",), strided=True), 30):
        numbers = [c % 61 + 2 for c in range(case.config.num_features)]
        assert tensor(case, "weight").tolist() == tensor(case, "running_mean").tolist() == numbers


def test_a_state_fits_its_config() -> None:
    for case in sample():
        config, state = case.config, case.state or State()
        for name, held in state.items():
            wanted = config.affine if name in ("weight", "bias") else config.track_running_stats
            shape = () if name == "num_batches_tracked" else (config.num_features,)
            assert (
                (held is None)
                if not wanted or case.state is None
                else (held is not None and held.shape == shape)
            )


def test_the_strategies_are_functions_whatever_is_imported_first(tmp_path: Path) -> None:
    script = (
        "import bn_spec.suite.search\n"
        "from bn_spec.strategies import among, cases, chosen\n"
        "cases(), chosen(among([1]))\n"
    )
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
