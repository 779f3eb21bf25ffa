"""Pinned cases: each shows its fault, they are played before anything is drawn, and only where they are claimed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from bn_spec import Capabilities, Case, Config, State
from bn_spec.backend.claims import EVERYTHING
from bn_spec.backend.needs import is_claimed
from bn_spec.case.arrays import FILLER
from bn_spec.case.script import identical
from bn_spec.case.source import source
from bn_spec.case.steps import Backward, DoubleBackward, Eval, Fold, Forward, Load, Save, Set
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.cell import LARGE, PROPERTIES, Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.pinned import PATH, Pinned, of_requirement, pinned
from scripts.faults import LUCK, TABLE, table

load_suite()

FAULTY = [specimen for specimen in SPECIMENS.values() if not specimen.sound]
X = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)


def cell_of(name: str, requirement: str, dtype: str) -> Cell:
    (prop,) = PROPERTIES[requirement]
    return Cell(prop, SPECIMENS[name], dtype)


@pytest.mark.parametrize("each", pinned().values(), ids=lambda each: each.specimen)
def test_a_pinned_case_shows_its_fault_before_anything_is_drawn(each: Pinned) -> None:
    cell = cell_of(each.specimen, each.requirement, each.case.config.dtype)
    assert each in of_requirement(each.requirement)
    assert shows(partial(cell.replay, large=each.case.values > LARGE))
    assert cell.examples == 0
    assert shows(partial(cell.prop.body, cell, each.case), each.corrupts)


def shows(look: Callable[[], None], observables: tuple[str, ...] = ()) -> bool:
    """Whether a look finds one of the observables wrong; one with luck, of threads or orders, is had within some."""
    for _ in range(LUCK):
        try:
            look()
        except Violation as found:
            return not observables or found.finding.discrepancy.observable in observables
    return False


@pytest.mark.parametrize("each", pinned().values(), ids=lambda each: each.specimen)
def test_a_pinned_case_is_kept_as_the_python_that_is_printed(each: Pinned) -> None:
    code = source(each.case)
    assert without_packed(code) == without_packed(each.code)
    assert identical(replace(each, code=code).case, each.case)


def without_packed(code: str) -> str:
    """Return the source of a case without packed arrays: compressors need not agree on bytes."""
    return re.sub(r"array\('[^']*'", "array('…'", code)


def test_a_pinned_case_is_played_in_every_run() -> None:
    for each in pinned().values():
        (prop,) = PROPERTIES[each.requirement]
        assert not prop.deep
        assert not prop.huge
        assert each.requirement[:3] == SPECIMENS[each.specimen].caught_by[0][:3]


def test_every_fault_is_pinned_but_that_of_gigabytes() -> None:
    (missing,) = [specimen for specimen in FAULTY if specimen.name not in pinned()]
    assert missing.caught_by == ("SHP-07",)


def test_the_file_lists_each_specimen_once_in_the_order_of_the_catalogue() -> None:
    names = [entry["specimen"] for entry in json.loads(PATH.read_text("utf-8"))]
    assert names == [name for name in SPECIMENS if name in pinned()]


def test_the_catalogue_of_faults_is_what_the_specimens_say() -> None:
    assert TABLE.read_text("utf-8") == table(), "run: python scripts/faults.py --table"


def test_playing_pinned_cases_counts_for_nothing() -> None:
    cell = cell_of("two-pass-pairwise", "TRN-01", "float32")
    assert of_requirement("TRN-01")
    cell.replay(large=False)
    assert (cell.examples, cell.judged, cell.shares, cell.reached) == (0, 0, {}, {})


def test_a_run_plays_them_first() -> None:
    cell = cell_of("runvar-bias", "RUN-03", "float32")
    with pytest.raises(Violation) as found:
        cell.run()
    assert cell.examples == 0
    assert "runvar-bias: running_var is updated with the biased variance" in str(found.value)


def test_another_dtype_draws() -> None:
    cell = cell_of("runvar-bias", "RUN-03", "float64")
    with pytest.raises(Violation):
        cell.run()
    assert cell.examples > 0


SPREAD = np.full((1, 2, 1, 6), FILLER, np.float32)[..., ::2]
GAPS = np.full(4, FILLER, np.float32)[::2]
RECORDED = Forward(X, ("input",))


@pytest.mark.parametrize(
    ("flag", "case"),
    [
        ("affine_off", Case(Config(2, affine=False), None, (Forward(X),))),
        ("tracking_off", Case(Config(2, track_running_stats=False), None, (Forward(X),))),
        ("cumulative_momentum", Case(Config(2, momentum=None), None, (Forward(X),))),
        ("cumulative_momentum", Case(Config(2), None, (Set("momentum", None),))),
        ("live_attributes", Case(Config(2), None, (Set("eps", 1.0),))),
        ("inference", Case(Config(2), None, (Eval(), Forward(X)))),
        ("gradients", Case(Config(2), None, (RECORDED,))),
        ("gradients", Case(Config(2), None, (RECORDED, Backward(X)))),
        ("double_backward", Case(Config(2), None, (RECORDED, DoubleBackward(X, X)))),
        ("checkpoints", Case(Config(2), None, (Save(),))),
        ("checkpoints", Case(Config(2), None, (Load(strict=False),))),
        ("folding", Case(Config(2), None, (Eval(), Fold(np.ones((2, 1, 1, 1), np.float32))))),
        ("empty_batch", Case(Config(2), None, (Forward(X[:0]),))),
        (
            "strided_state",
            Case(Config(2), State(GAPS, GAPS, GAPS, GAPS, np.array(0)), (Forward(X),)),
        ),
    ],
)
def test_a_case_is_claimed_with_all_that_it_needs(flag: str, case: Case) -> None:
    assert is_claimed(case, EVERYTHING)
    lacking: Any = () if isinstance(getattr(EVERYTHING, flag), tuple) else False
    assert not is_claimed(case, replace(EVERYTHING, **{flag: lacking}))


def test_layouts_and_dtypes_must_be_claimed() -> None:
    plain = Case(Config(2), None, (Forward(X),))
    strided = Case(Config(2), None, (Forward(SPREAD),))
    dense = Capabilities(layouts=("contiguous",))
    assert [is_claimed(case, dense) for case in (plain, strided)] == [True, False]
    assert is_claimed(strided, Capabilities())
    assert not is_claimed(plain, Capabilities(dtypes=("float64",)))


def test_who_pays_seconds_for_a_signature_is_spared_those_of_pinned_cases() -> None:
    cell = cell_of("runvar-bias", "RUN-03", "float32")
    claims = replace(cell.claims, expensive_signatures=True)
    spared = replace(cell, backend=replace(SPECIMENS["runvar-bias"], capabilities=claims))
    assert shows(partial(cell.replay, large=False))
    assert not shows(partial(spared.replay, large=False))


def test_a_large_one_is_played_once_no_smaller_case_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert any(each.case.values > LARGE for each in of_requirement("SHP-01"))
    with pytest.raises(Violation) as found:
        cell_of("eps-outside-root", "SHP-01", "float32").run()
    assert found.value.drawn.values <= 8
    for name in ("examine", "explanations"):
        monkeypatch.setattr(Cell, name, lambda *_: None)
    with pytest.raises(Violation) as found:
        cell_of("channels-counted-in-16-bits", "SHP-01", "float32").run()
    assert found.value.drawn.values > LARGE
