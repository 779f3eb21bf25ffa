"""The observables of laws: what breaks each law, and where a law says nothing."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from bn_spec import Backend, Case, Config, State
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.dtypes import Array
from bn_spec.case.laws import LAWS, doubled, of_two_values
from bn_spec.case.steps import (
    Eval,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Save,
    Set,
    Step,
    Train,
)
from bn_spec.judge.judging import judge
from bn_spec.judge.observables.followed_laws import FOLLOWED_LAWS
from bn_spec.judge.verdict import Verdict
from bn_spec.play.observation import Observation
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.cell import Cell
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES
from bn_spec.suite.search import Search

for _chapter in ("trn", "run", "evl", "met"):  # importing a chapter declares its properties
    import_module(f"conformance.test_{_chapter}")

CI = PROFILES["ci"].settings()

CONFIG = Config(2, eps=0.5, momentum=1.0)
X = np.array([[0, 1, 4, 3, -1, 2], [7, -5, 3, 2, 6, 8]], np.float32).reshape(2, 2, 1, 3)
OTHER = np.where(np.arange(12).reshape(X.shape) == 4, X + 1, X)
ZEROS = np.zeros_like(X)


def of_channels(*values: float) -> Array:
    return np.array(values, np.float32)


STATE = State(
    of_channels(2, -3), of_channels(1, 5), of_channels(1, -2), of_channels(3, 0.25), np.array(4)
)
PLAIN = Load(of_channels(1, 1), of_channels(0, 0), strict=False)
ELSEWHERE = Load(running_mean=of_channels(0, 3), running_var=of_channels(2, 2), strict=False)
REVERSED = Load(of_channels(-3, 2), of_channels(5, 1), strict=False)


def steps_of(name: str, x: Array = X) -> tuple[Step, ...]:
    """Return the steps of which a law of one forward and the next says something."""
    law = LAWS[name]
    between: list[Step] = [REVERSED] if law.parameters else []
    if law.eps_factor != 1:
        between.append(Set("eps", CONFIG.eps * law.eps_factor))
    return Forward(x), *between, Forward(np.ascontiguousarray(law.change(x)))


STEPS: dict[str, tuple[Step, ...]] = {
    **{name: steps_of(name) for name in LAWS},
    "unscaled": (Forward(X), PLAIN, Forward(X)),
    "additive": (Eval(), *map(Forward, (X, OTHER, X + OTHER, ZEROS))),
    "joined": (Eval(), *map(Forward, (X, OTHER[:1], np.concatenate([X, OTHER[:1]])))),
    "centred": (Forward(X),),
    "two values": (Forward(of_two_values(X)),),
    "contraction": (Forward(X), Forward(X)),
    "estimator": (Forward(X), Forward(doubled(X))),
}
"""Steps of which each law says something."""

OF_OUTPUT = tuple(name for name in STEPS if name not in ("contraction", "estimator"))

SOUND: list[Backend] = [
    reference,
    *(s for s in SPECIMENS.values() if s.sound and s.capabilities.normalises_by_batch),
]
"""Laws are about the statistics of a batch."""


def case_of(steps: tuple[Step, ...], state: State = STATE, **config: Any) -> Case:
    return Case(replace(CONFIG, **config), state, steps)


def judged(case: Case, name: str, observation: Observation | None = None) -> Verdict:
    return judge(case, observation or play(case, reference), (name,), reference.capabilities)


def test_every_law_has_steps_of_which_it_says_something() -> None:
    assert STEPS.keys() == FOLLOWED_LAWS.keys()


@pytest.mark.parametrize("momentum", [1.0, 0.25])
@pytest.mark.parametrize("name", STEPS)
def test_a_law_is_kept_by_what_is_right(name: str, momentum: float) -> None:
    case = case_of(STEPS[name], momentum=momentum)
    for backend in SOUND:
        verdict = judge(case, play(case, backend), (name,), backend.capabilities)
        assert not verdict.discrepancies
        assert verdict.judged > 0 or (name, momentum) == ("estimator", 0.25)


@pytest.mark.parametrize("name", OF_OUTPUT)
def test_a_law_is_broken_by_any_wrong_element_of_any_output(name: str) -> None:
    case = case_of(STEPS[name])
    observation = play(case, reference)
    for index, answer in enumerate(observation.answers):
        if not isinstance(answer.output, np.ndarray):
            continue
        for place in np.ndindex(answer.output.shape):
            wrong = answer.output.copy()
            wrong[place] += 0.01
            answers = list(observation.answers)
            answers[index] = replace(answer, output=wrong)
            (found,) = judged(
                case, name, replace(observation, answers=tuple(answers))
            ).discrepancies
            assert found.observable == name


@pytest.mark.parametrize("tensor", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    ("name", "momentum"),
    [("two values", 1.0), ("estimator", 1.0), ("contraction", 1.0), ("contraction", 0.25)],
)
def test_a_law_is_broken_by_any_wrong_running_statistic(
    name: str, momentum: float, tensor: str
) -> None:
    case = case_of(STEPS[name], momentum=momentum)
    observation = play(case, reference)
    for index, channel in np.ndindex(len(case.steps), 2):
        answers = list(observation.answers)
        wrong = _with_another_number(answers[index].after, tensor, channel)
        answers[index] = replace(answers[index], after=wrong)
        if answers[index + 1 :]:
            answers[index + 1] = replace(answers[index + 1], before=wrong)
        (found,) = judged(case, name, replace(observation, answers=tuple(answers))).discrepancies
        assert found.observable == name


def _with_another_number(state: object, tensor: str, channel: int) -> State:
    assert isinstance(state, State)
    changed = state.copy()
    getattr(changed, tensor)[channel] += 0.01
    return changed


LOWER = Set("eps", 0.25)
ONE_MORE = np.concatenate([X, X[:1]])

NONE_OF_IT = [
    *(
        pytest.param(name, (Eval(), *STEPS[name]), id=f"{name}, in eval mode")
        for name in (*LAWS, "centred")
    ),
    *(pytest.param(name, STEPS[name][-1:], id=f"{name}, after nothing") for name in LAWS),
    *(
        pytest.param(name, (*STEPS[name][:-1], LOWER, STEPS[name][-1]), id=f"{name}, another eps")
        for name in LAWS
    ),
    *(
        pytest.param(name, (Forward(OTHER), *STEPS[name][1:]), id=f"{name}, of another input")
        for name in LAWS
    ),
    *(
        pytest.param(
            name, (*STEPS[name][:-1], PLAIN, STEPS[name][-1]), id=f"{name}, with other parameters"
        )
        for name in LAWS
    ),
    *(
        pytest.param(
            name, (STEPS[name][0], Eval(), *STEPS[name][1:]), id=f"{name}, in another mode"
        )
        for name in (*LAWS, "unscaled", "contraction", "estimator")
    ),
    pytest.param("shifted", steps_of("shifted", X + np.float32(2.0**-21)), id="shifted, rounded"),
    pytest.param(
        "scaled", (*STEPS["scaled"][:1], *STEPS["scaled"][2:]), id="scaled, with the same eps"
    ),
    pytest.param(
        "channels reversed",
        STEPS["channels reversed"][::2],
        id="channels reversed, but no parameters",
    ),
    pytest.param("unscaled", (Forward(X), Forward(X)), id="unscaled, with a weight and a bias"),
    pytest.param(
        "unscaled",
        (Forward(X), Load(STATE.weight, PLAIN.bias, strict=False), Forward(X)),
        id="weighted",
    ),
    pytest.param(
        "unscaled",
        (Forward(X), Load(PLAIN.weight, STATE.bias, strict=False), Forward(X)),
        id="biased",
    ),
    pytest.param("unscaled", (Forward(OTHER), PLAIN, Forward(X)), id="unscaled, another input"),
    pytest.param("unscaled", (Forward(X), PLAIN, LOWER, Forward(X)), id="unscaled, another eps"),
    pytest.param(
        "unscaled",
        (Eval(), Forward(X), PLAIN, ELSEWHERE, Forward(X)),
        id="unscaled, other statistics",
    ),
    pytest.param(
        "unscaled",
        (Eval(), Forward(X), Train(), PLAIN, Forward(X)),
        id="unscaled, from eval to training",
    ),
    pytest.param("additive", STEPS["additive"][1:], id="additive, in training"),
    pytest.param("additive", STEPS["additive"][:-1], id="additive, without zeros"),
    pytest.param(
        "additive",
        (Eval(), *map(Forward, (X, OTHER, X + OTHER, X))),
        id="additive, other than zeros",
    ),
    pytest.param(
        "additive", (Eval(), *map(Forward, (X, OTHER, X, ZEROS))), id="additive, not the sum"
    ),
    pytest.param(
        "additive", (Eval(), *map(Forward, (X, X[:1], X + X[:1], ZEROS))), id="additive, broadcast"
    ),
    pytest.param("joined", STEPS["joined"][1:], id="joined, in training"),
    pytest.param(
        "joined", (Eval(), *map(Forward, (X[:1], X, ONE_MORE))), id="joined, the other way round"
    ),
    pytest.param("joined", (Eval(), *map(Forward, (X, OTHER, X))), id="joined, but not both"),
    *(
        pytest.param(
            name, (*STEPS[name][:3], step, *STEPS[name][3:]), id=f"{name}, with another {what}"
        )
        for name in ("additive", "joined")
        for what, step in (("eps", LOWER), ("weight", PLAIN), ("running mean", ELSEWHERE))
    ),
    pytest.param("two values", (Eval(), *STEPS["two values"]), id="two values, in eval mode"),
    pytest.param("two values", (Forward(X),), id="more than two values"),
    pytest.param("contraction", (Forward(OTHER), Forward(X)), id="contraction, another input"),
    pytest.param("estimator", (Forward(OTHER), Forward(doubled(X))), id="estimator, another input"),
    pytest.param("estimator", (Forward(X), Forward(ONE_MORE)), id="estimator, not twice over"),
    pytest.param("estimator", STEPS["estimator"][1:], id="estimator, after nothing"),
    *(
        pytest.param(name, (STEPS[name][0], step, *STEPS[name][1:]), id=f"{name}, across a {what}")
        for name in ("contraction", "estimator")
        for what, step in (
            ("reset", ResetRunningStats()),
            ("whole reset", ResetParameters()),
            ("load", ELSEWHERE),
        )
    ),
    *(
        pytest.param(
            name,
            (Set("momentum", 0.5), STEPS[name][0], Set("momentum", 1.0), *STEPS[name][1:]),
            id=name,
        )
        for name in ("contraction", "estimator")
    ),
    *(
        pytest.param(
            name, (*STEPS[name][:1], Set("momentum", m), *STEPS[name][1:]), id=f"{name}, then {m}"
        )
        for name in ("contraction", "estimator")
        for m in (0.5, None)
    ),
]


@pytest.mark.parametrize(("name", "steps"), NONE_OF_IT)
def test_of_other_steps_a_law_says_nothing(name: str, steps: tuple[Step, ...]) -> None:
    verdict = judged(case_of(steps), name)
    assert (verdict.judged, verdict.outside, verdict.discrepancies) == (0, 0, [])


@pytest.mark.parametrize("name", ["additive", "joined"])
def test_without_running_statistics_eval_mode_is_linear_in_nothing(name: str) -> None:
    untracked = State(STATE.weight, STATE.bias)
    assert judged(case_of(STEPS[name], untracked, track_running_stats=False), name).judged == 0


@pytest.mark.parametrize("name", OF_OUTPUT)
def test_a_law_of_the_output_needs_neither_parameters_nor_running_statistics(name: str) -> None:
    bare = tuple(step for step in STEPS[name] if not isinstance(step, Load))
    verdict = judged(case_of(bare, State(), affine=False, track_running_stats=False), name)
    assert not verdict.discrepancies
    assert (verdict.judged > 0) is (name not in ("unscaled", "additive", "joined"))


@pytest.mark.parametrize("name", STEPS)
def test_of_batches_without_samples_or_pixels_a_law_says_nothing(name: str) -> None:
    backend = SPECIMENS["two-pass-sequential"]
    assert backend.capabilities.empty_batch
    for shape in ((0, 2, 1, 3), (2, 2, 0, 3)):
        steps = tuple(
            Forward(np.zeros(shape, np.float32)) if isinstance(s, Forward) else s
            for s in STEPS[name]
        )
        case = case_of(steps)
        assert judge(case, play(case, backend), (name,), backend.capabilities).judged == 0


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_another_kind_between_make_no_difference(name: str) -> None:
    first, *others = STEPS[name]
    between = Save() if name in ("additive", "joined") else Train()
    steps = [step for other in others for step in (between, other)]
    case = case_of((first, *steps, Save()))
    assert judged(case, name).judged == judged(case_of(STEPS[name]), name).judged > 0


def test_a_counter_of_another_shape_is_no_obstacle_to_a_law() -> None:
    prop = PROPERTIES["MET-12"]
    cell = Search(
        Cell(prop, SPECIMENS["counter-one-dimensional"], "float32"), settings(CI, max_examples=40)
    )
    cell.examine()
    assert cell.tally.judged > 0
