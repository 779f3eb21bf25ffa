"""Dialects: how conventions are translated, stored, reported and judged."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from bn_spec import Capabilities, Case, Config, check, kernel_backend
from bn_spec.backend.needs import is_claimed
from bn_spec.case.dialect import PYTORCH, SENTENCES, Dialect
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.steps import Eval, Forward, Set
from bn_spec.errors import ConfigError
from bn_spec.oracle.bounds import Accuracy, Model, debiasing_error
from bn_spec.oracle.reference.formulas import update_factor
from bn_spec.specimens import SPECIMENS
from bn_spec.specimens.dialects import DIALECT
from bn_spec.strategies import cases
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search
from tests.draws import drawn

load_suite()

X = np.array([1, 3, 5, 7], np.float32).reshape(4, 1, 1, 1)


def test_the_defaults_are_pytorchs_and_nothing_is_said_of_them() -> None:
    assert PYTORCH.departures() == []
    assert PYTORCH.as_stored(Config(2, eps=1e-5, momentum=0.1)) == Config(2, eps=1e-5, momentum=0.1)
    assert Capabilities().dialect is PYTORCH


def test_a_momentum_of_the_old_value_is_translated_and_held() -> None:
    assert Dialect(momentum_weighs="old").momentum(0.25) == 0.75
    assert Dialect("old").as_stored(Config(1, momentum=0.1)).momentum == pytest.approx(
        0.1, abs=1e-16
    )
    stored = Dialect("old", attributes="float32").as_stored(Config(1, momentum=0.1, eps=0.1))
    assert stored.momentum == 1 - float(np.float32(0.9))
    assert stored.eps == float(np.float32(0.1))
    assert Dialect("old").as_stored(Config(1, momentum=None)).momentum is None


@pytest.mark.parametrize("weight", [0.0, 1.0, 1 / 3, 1e-9])
def test_a_held_momentum_is_a_weight(weight: float) -> None:
    for attributes in ("float32", "float64"):
        dialect = Dialect("old", attributes=attributes)
        stored = dialect.as_stored(Config(1, momentum=weight))
        assert stored.momentum is not None
        assert 0 <= stored.momentum <= 1


def test_estimators() -> None:
    assert [PYTORCH.estimator(n) for n in (1, 2, 5)] == [1.0, 2.0, 1.25]
    assert [DIALECT.estimator(n) for n in (1, 2, 5)] == [1.0, 1.0, 1.0]


def test_every_departure_is_told_in_a_sentence() -> None:
    told = replace(
        DIALECT,
        counter=False,
        eps_range=(1e-5, 1e-3),
        averages="debiased",
        mixed_output="parameters",
        training_output="running",
    ).departures()
    assert len(told) == len(SENTENCES)
    assert "momentum is the weight of the old value of running statistics" in told
    assert "eps must lie in (1e-05, 0.001)" in told


@pytest.mark.parametrize(
    "convention",
    [
        "momentum_weighs",
        "running_var",
        "averages",
        "training_output",
        "mixed_output",
        "single_value",
        "attributes",
    ],
    ids=lambda name: name,
)
def test_an_unknown_convention_is_refused(convention: str) -> None:
    unknown: dict[str, Any] = {convention: "newest"}
    with pytest.raises(ConfigError, match=r"'newest' is not known; known: "):
        Dialect(**unknown)


def test_a_dialect_is_expected_on_numbers_worked_out_by_hand() -> None:
    """The batch has mean 4 and biased variance 5; a quarter of both enters.

    The momentum, 0.75, is the weight of the old value.
    """
    backend = replace(SPECIMENS["another-dialect"], name="old")
    case = Case(Config(1, momentum=0.25), None, (Forward(X), Eval(), Forward(X)))
    assert check(case, backend) == []
    layer = backend.layer(case.config, None)
    layer.forward(X)
    assert layer.state().running_mean == 1
    assert layer.state().running_var == 2
    other = replace(backend, capabilities=replace(backend.capabilities, dialect=PYTORCH))
    assert {d.observable for d in check(case, other)} == {"running_var"}


def test_averages_are_expected_on_numbers_worked_out_by_hand() -> None:
    """The batches have means 4 and 8, and the momentum is 1/2.

    Debiased averages weigh the batches by 1/3 and 2/3. Averages from the first batch weigh them by
    1/2 and 1/2.
    """
    case = Case(Config(1, momentum=0.5), None, (Forward(X), Forward(X + 4)))
    for name, mean in (("debiased-averages", 20 / 3), ("averages-from-the-first-batch", 6)):
        backend = SPECIMENS[name]
        layer = backend.layer(case.config, None)
        for x in case.forwards():
            layer.forward(x)
        assert layer.state().running_mean == pytest.approx(mean, rel=1e-6)
        assert check(case, backend) == []
        assert check(
            case, replace(backend, capabilities=replace(backend.capabilities, dialect=PYTORCH))
        )


@pytest.mark.parametrize("momentum", [0.5, 0.1, 1e-3])
@pytest.mark.parametrize("batches", [1, 2, 10, 10**6])
def test_the_weights_of_debiased_averages_are_those_of_the_sum_that_they_stand_for(
    momentum: float, batches: int
) -> None:
    with localcontext(prec=60):
        rest = Decimal(1) - Decimal(momentum)
        wanted = 1 / (1 + sum((rest**i for i in range(1, min(batches, 200_000))), Decimal(0)))
    got = update_factor(momentum, batches, "debiased")
    assert float(abs(Decimal(float(got.hi)) + Decimal(float(got.lo)) - wanted) / wanted) < 2.0**-80


def test_a_kernel_that_debiases_in_float32_is_given_what_its_power_loses_and_no_more() -> None:
    one = np.ones((1, 1))
    model = Model(DTYPES["float32"], 16, Accuracy(dialect=Dialect(averages="debiased")))
    tight, loose, hopeless = (
        debiasing_error(model, m, 2, one, 2 * one, one).item() for m in (0.5, 1e-3, 1e-9)
    )
    assert 0 < tight < 64 * model.u
    assert 1000 * model.u < loose < 1e5 * model.u
    assert hopeless == np.inf


def test_running_statistics_normalise_once_the_batch_has_moved_them() -> None:
    """The second batch moves the statistics before they normalise it.

    Its values are 5, 7, 9 and 11. With momentum 1/2, the mean moves from 4 to 6, and the variance
    stays 5.
    """
    case = Case(Config(1, momentum=0.5, eps=1e-12), None, (Forward(X), Forward(X + 4)))
    backend = SPECIMENS["running-statistics-normalise"]
    layer = backend.layer(case.config, None)
    first, second = (layer.forward(x).ravel() for x in case.forwards())
    assert first == pytest.approx([a / 5**0.5 for a in (-3, -1, 1, 3)], rel=1e-6)
    assert second == pytest.approx([a / 5**0.5 for a in (-1, 1, 3, 5)], rel=1e-6)
    assert check(case, backend) == []
    assert check(
        case, replace(backend, capabilities=replace(backend.capabilities, dialect=PYTORCH))
    )


def test_there_is_no_reference_for_gradients_through_running_statistics() -> None:
    with pytest.raises(
        ConfigError,
        match="claimed with training_output='running', for which there is no reference; claim",
    ):
        Capabilities(gradients=True, dialect=Dialect(training_output="running"))


def test_a_single_value_is_answered_or_refused_as_the_dialect_says() -> None:
    case, answering = Case(Config(1), None, (Forward(X[:1]),)), SPECIMENS["another-dialect"]
    assert check(case, answering) == []
    claims = replace(answering.capabilities, dialect=replace(DIALECT, single_value="refused"))
    assert "refusal" in {d.observable for d in check(case, replace(answering, capabilities=claims))}


@pytest.mark.parametrize("requirement", ["TRN-10", "ERR-01"])
def test_what_the_dialect_decides_is_claimed_by_one_of_two(requirement: str) -> None:
    prop = PROPERTIES[requirement]
    specimens = (SPECIMENS[name] for name in ("another-dialect", "two-pass-pairwise"))
    assert sum(bool(Cell(prop, specimen, "float32").not_claimed) for specimen in specimens) == 1


def test_a_finding_tells_the_convention_that_it_is_about() -> None:
    prop = PROPERTIES["RUN-03"]
    with pytest.raises(Violation) as found:
        Search(
            Cell(prop, SPECIMENS["biased-variance-claimed"], "float32"), PROFILES["ci"].settings()
        ).examine()
    assert (
        found.value.finding.note == "running_var is updated with the biased variance of the batch"
    )


NARROW = replace(Capabilities(), dialect=Dialect(eps_range=(2e-5, 1e-3)))


def test_no_eps_is_drawn_or_pinned_that_the_dialect_does_not_take() -> None:
    history = ("forward", "set eps", "forward")
    met = drawn(cases(claims=replace(NARROW, live_attributes=True), history=history), 50)
    every = {case.config.eps for case in met} | {
        s.value for case in met for s in case.steps if isinstance(s, Set)
    }
    assert every == {1e-3}
    assert {case.config.eps for case in drawn(cases(claims=NARROW, eps=(1.0,)), 5)} == {1e-3}
    assert not is_claimed(Case(Config(1), None, (Forward(X),)), NARROW)
    assert is_claimed(Case(Config(1, eps=1e-4), None, (Forward(X),)), NARROW)
    assert not is_claimed(
        Case(Config(1, eps=1e-4), None, (Set("eps", 1.0),)), replace(NARROW, live_attributes=True)
    )


def test_kernel_functions_can_be_of_a_dialect() -> None:
    dialect = Dialect("old", "biased")

    def training(
        x: Any,
        weight: Any,
        bias: Any,
        running_mean: Any,
        running_var: Any,
        momentum: float,
        eps: float,
    ) -> Any:
        def blended(running: Any, new: Any) -> Any:
            if running is None:
                return None
            old = dialect.momentum(momentum)
            return np.float32(old) * running + np.float32(1 - old) * new

        m, v = x.mean((0, 2, 3)), x.var((0, 2, 3))
        y = (x - m.reshape(1, -1, 1, 1)) / np.sqrt(v + np.float32(eps)).reshape(1, -1, 1, 1)
        if weight is not None:
            y = y * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
        return y, blended(running_mean, m), blended(running_var, v)

    claims = Capabilities(dialect=dialect, inference=False, input_checks=False, grade="two-pass")
    backend = kernel_backend("old", training, capabilities=claims)
    for requirement in ("TRN-01", "RUN-01", "RUN-03", "MET-13"):
        prop = PROPERTIES[requirement]
        Search(Cell(prop, backend, "float32"), PROFILES["ci"].settings(30)).examine()
