"""Pinned cases: each shows its fault before any case is drawn.

A pinned case is played only if the backend claims everything that the case needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bn_spec import Capabilities, Case, Config, State
from bn_spec.backend.claims import EVERYTHING
from bn_spec.backend.needs import is_claimed
from bn_spec.case.arrays import FILLER
from bn_spec.case.script import identical
from bn_spec.case.steps import Backward, DoubleBackward, Eval, Fold, Forward, Load, Save, Set
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.pinned import PATH, Pinned, of_requirement, pinned, save
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import LARGE, Search
from bn_spec.tools.diagnosis import explain
from scripts.faults import LUCK, TABLE, table

load_suite()

FAULTY = [specimen for specimen in SPECIMENS.values() if not specimen.sound]
X = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)


def search_of(name: str, requirement: str, dtype: str) -> Search:
    prop = PROPERTIES[requirement]
    return Search(Cell(prop, SPECIMENS[name], dtype), explain=explain)


@pytest.mark.parametrize("each", pinned().values(), ids=lambda each: each.specimen)
def test_a_pinned_case_shows_its_fault_before_anything_is_drawn(each: Pinned) -> None:
    search = search_of(each.specimen, each.requirement, each.case.config.dtype)
    assert each in of_requirement(each.requirement)
    assert shows(partial(search.play_pinned, large=each.case.values > LARGE))
    assert search.tally.examples == 0
    assert shows(partial(search.cell.prop.body, search.cell, each.case), each.corrupts)


def shows(look: Callable[[], None], observables: tuple[str, ...] = ()) -> bool:
    """Whether a search finds one of the observables wrong within :data:`scripts.faults.LUCK` tries.

    Some faults depend on the order of threads or of random choices, so one try may miss them.
    """
    for _ in range(LUCK):
        try:
            look()
        except Violation as found:
            return not observables or found.finding.discrepancy.observable in observables
    return False


def test_the_file_holds_data_that_are_written_as_they_were_read(tmp_path: Path) -> None:
    save(pinned().values(), tmp_path / "pinned.json")
    again = json.loads((tmp_path / "pinned.json").read_text("utf-8"))
    for entry, each in zip(again, pinned().values(), strict=True):
        assert identical(Pinned.of(entry).case, each.case)
        assert entry["corrupts"] == list(each.corrupts)


def test_a_pinned_case_is_played_in_every_run() -> None:
    for each in pinned().values():
        prop = PROPERTIES[each.requirement]
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
    search = search_of("two-pass-pairwise", "TRN-01", "float32")
    assert of_requirement("TRN-01")
    search.play_pinned(large=False)
    assert (
        search.tally.examples,
        search.tally.judged,
        search.tally.shares,
        search.tally.reached,
    ) == (
        0,
        0,
        {},
        {},
    )


def test_a_run_plays_them_first() -> None:
    search = search_of("runvar-bias", "RUN-03", "float32")
    with pytest.raises(Violation) as found:
        search.run()
    assert search.tally.examples == 0
    assert "runvar-bias: running_var is updated with the biased variance" in str(found.value)


def test_another_dtype_draws() -> None:
    search = search_of("runvar-bias", "RUN-03", "float64")
    with pytest.raises(Violation):
        search.run()
    assert search.tally.examples > 0


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
    search = search_of("runvar-bias", "RUN-03", "float32")
    claims = replace(search.cell.claims, expensive_signatures=True)
    costly = replace(SPECIMENS["runvar-bias"], capabilities=claims)
    spared = Search(replace(search.cell, backend=costly))
    assert shows(partial(search.play_pinned, large=False))
    assert not shows(partial(spared.play_pinned, large=False))


def test_a_large_one_is_played_once_no_smaller_case_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert any(each.case.values > LARGE for each in of_requirement("SHP-01"))
    with pytest.raises(Violation) as found:
        search_of("eps-outside-root", "SHP-01", "float32").run()
    assert found.value.drawn.values <= 8
    monkeypatch.setattr(Search, "examine", lambda _: None)
    with pytest.raises(Violation) as found:
        search_of("channels-counted-in-16-bits", "SHP-01", "float32").run()
    assert found.value.drawn.values > LARGE
