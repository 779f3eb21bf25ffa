"""The table of observables: what each row says about itself."""

from __future__ import annotations

import pytest

from bn_spec import Capabilities, ConfigError
from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.judge.observables import (
    ALWAYS,
    NEVER,
    OBSERVABLES,
    Observable,
    checked_observables,
    looks_at_memory,
    observable_named,
)
from bn_spec.judge.observables.followed_laws import FOLLOWED_LAWS
from bn_spec.oracle.expectation import PARTS

each_observable = pytest.mark.parametrize("row", OBSERVABLES.values(), ids=OBSERVABLES)


@each_observable
def test_a_row_reads_parts_of_the_expectation_that_exist(row: Observable) -> None:
    assert set(row.parts) <= set(PARTS)
    assert OBSERVABLES[row.name] is row


@each_observable
def test_check_asks_always_never_or_with_a_claim(row: Observable) -> None:
    assert row.checked in (ALWAYS, NEVER) or isinstance(getattr(EVERYTHING, row.checked), bool)


def test_check_asks_for_layouts_of_those_who_claim_them() -> None:
    claimed = {"gradient_layout", "output_layout"}
    assert claimed.isdisjoint(checked_observables(Capabilities()))
    asked = checked_observables(Capabilities(gradient_layout=True, output_layout=True))
    assert claimed <= set(asked)
    assert set(asked) - claimed == set(checked_observables(Capabilities()))


def test_memory_is_looked_at_for_those_observables_that_are_about_it() -> None:
    assert looks_at_memory(("output", "kept"))
    assert not looks_at_memory(("output", "running_mean"))


def test_every_law_has_a_rule_and_a_row() -> None:
    assert list(FOLLOWED_LAWS) == [*LAWS, *OTHER_LAWS]
    assert set(FOLLOWED_LAWS) <= OBSERVABLES.keys()


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"observable 'outputs' is not known; .* mean 'output'"):
        observable_named("outputs")
