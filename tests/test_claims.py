"""The table of claims: each field of Capabilities has a row with the requirements that judge it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bn_spec import Capabilities
from bn_spec.backend.claims import CLAIMS, EVERYTHING, Claim
from bn_spec.case.steps import STEP_KINDS
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.chapters import load_suite
from bn_spec.tools.doctor import PROBES

load_suite()

FIELDS = [field.name for field in fields(Capabilities)]
each_claim = pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)


def test_every_field_has_a_row() -> None:
    assert set(CLAIMS) == set(FIELDS)


@each_claim
def test_the_requirements_that_judge_a_claim_exist(claim: Claim) -> None:
    assert set(claim.judged_by) <= REQUIREMENTS.keys()


@each_claim
def test_a_claim_with_a_label_is_probed_by_the_doctor(claim: Claim) -> None:
    assert (claim.label in PROBES) == bool(claim.label)


@each_claim
def test_the_least_that_can_be_claimed_is_a_value_that_capabilities_take(claim: Claim) -> None:
    least = getattr(EVERYTHING, claim.flag) if claim.least is None else claim.least
    others: dict[str, Any] = {"dtypes": EVERYTHING.dtypes}
    assert getattr(Capabilities(**{**others, claim.flag: least}), claim.flag) == least


def test_the_steps_of_a_claim_are_those_whose_row_names_it() -> None:
    assert CLAIMS["checkpoints"].steps == ("Save", "Restore", "Load")
    assert CLAIMS["affine_off"].steps == ()
    claimed = {step for claim in CLAIMS.values() for step in claim.steps}
    assert claimed == {kind.step.__name__ for kind in STEP_KINDS.values() if kind.claim}
