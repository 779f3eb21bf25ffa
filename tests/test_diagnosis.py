"""Diagnosis: a catalogued fault explains a failure if its specimen fails in the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.diagnosis import AMONG_THREE, FIRST, anonymous, diagnosed
from bn_spec import Case, Config
from bn_spec.case.dtypes import Array
from bn_spec.case.script import identical
from bn_spec.case.steps import Backward, Eval, Forward, Restore, Save
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.specimens.kernel import Kernel
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.pinned import pinned
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from bn_spec.tools.diagnosis import CHANGES, LARGEST, agree, explain, explanations, near_cases

load_suite()

X = np.array([0, 1, 2, 4, 3, 1], np.float32).reshape(1, 2, 1, 3)
CASE = Case(Config(2, momentum=0.3), None, (Forward(X), Eval(), Forward(X)))


def test_the_right_class_is_named_first_and_among_the_first_three() -> None:
    small = [SPECIMENS[each.specimen] for each in pinned().values() if each.case.values <= 1000]
    found = [each for specimen in small[::6] if (each := diagnosed(specimen, seed=1))]
    assert len(found) > 25
    for share, count in ((FIRST, 1), (AMONG_THREE, 3)):
        wrong = [each.specimen.name for each in found if not each.right(each.named[:count])]
        assert len(found) - len(wrong) >= share * len(found) - 0.5, wrong


class Unknown(Kernel):
    """Adds a third to the output, which no catalogued fault does."""

    def affine(self, x_hat: Array) -> Array:
        return super().affine(x_hat) + np.float32(1 / 3)


def violation_of(kernel: type[Kernel], requirement: str) -> Violation:
    stranger = replace(SPECIMENS["two-pass-sequential"], name="stranger", kernel=kernel)
    prop = PROPERTIES[requirement]
    with pytest.raises(Violation) as found:
        Search(Cell(prop, stranger, "float32"), explain=explain).run()
    return found.value


def test_a_fault_that_is_not_on_record_is_said_to_be_none() -> None:
    assert "fault     not a known mistake" in str(violation_of(Unknown, "TRN-01"))


def test_a_known_fault_in_another_kernel_is_named_with_its_history() -> None:
    text = str(violation_of(anonymous(SPECIMENS["eps-outside-root"]).kernel, "TRN-03"))
    assert "fault     eps-outside-root: " in text
    assert "Tencent/ncnn#311" in text


def test_who_passes_is_played_on_no_specimen(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("asked for an explanation of nothing")

    monkeypatch.setattr("bn_spec.tools.diagnosis.explanations", never)
    prop = PROPERTIES["TRN-01"]
    Search(Cell(prop, SPECIMENS["two-pass-sequential"], "float32"), explain=explain).run()


def test_nobody_is_asked_about_a_large_case() -> None:
    x = np.zeros((1, 1, 1, LARGEST + 1), np.float32)
    case = Case(Config(1), None, (Forward(x),))
    assert explanations(case, SPECIMENS["runvar-bias"], "RUN-03", lambda _: True) is None


def test_sound_kernels_agree_and_a_faulty_one_does_not() -> None:
    one, other, faulty = (
        play(CASE, SPECIMENS[name])
        for name in ("two-pass-sequential", "folded-affine", "runvar-bias")
    )
    claims = SPECIMENS["two-pass-sequential"].capabilities
    assert agree(CASE, one, other, claims)
    assert not agree(CASE, one, faulty, claims)


@pytest.mark.parametrize(
    "specimen", ["input-overwritten", "counter-not-incremented", "checkpoint-by-reference"]
)
def test_side_effects_and_state_count(specimen: str) -> None:
    steps = (Save(), Forward(X), Eval(), Forward(X), Restore())
    case = replace(CASE, steps=steps)
    sound = SPECIMENS["two-pass-sequential"]
    assert not agree(case, play(case, sound), play(case, SPECIMENS[specimen]), sound.capabilities)


def test_cases_near_a_case_differ_from_it_and_are_always_the_same() -> None:
    case = replace(
        CASE, steps=(Forward(X, ("input",)), Backward(X, 0), Save(), Restore(0), Forward(X))
    )
    first, again = (list(near_cases(case, sizes=True)) for _ in range(2))
    assert len(first) == 3 * len(CHANGES)
    assert all(map(identical, first, again))
    assert not any(identical(case, near) for near in first)
    shapes = {x.shape for near in first for x in near.forwards()}
    assert len(shapes) > 1
    assert {x.shape for near in near_cases(case, sizes=False) for x in near.forwards()} == {X.shape}


def test_what_is_handed_over_again_stays_the_same_in_cases_near_it() -> None:
    for near in near_cases(CASE, sizes=False):
        first, second = near.forwards()
        assert first.tobytes() == second.tobytes()
