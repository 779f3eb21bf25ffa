"""Laws notice a reference that is wrong, even if the judge is wrong in the same way; and they judge nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from math import prod
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bn_spec import Backend, Case, Config, State
from bn_spec.backend.adapters.reference_backend import reference
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.laws import LAWS, doubled, is_exact, of_two_values, two_values
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
from bn_spec.judge.observables.followed_laws import OTHERS
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.reference import formulas as f
from bn_spec.play.observation import Observation
from bn_spec.play.player import play
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.specimens import SPECIMENS
from bn_spec.strategies import Recipe, chosen, shapes
from bn_spec.suite.cell import PROPERTIES, Cell, Violation
from bn_spec.suite.profiles import PROFILES

from .common import examples

for _chapter in ("trn", "run", "evl", "met"):  # importing a chapter declares its properties
    import_module(f"conformance.test_{_chapter}")

CI = PROFILES["ci"].settings()
UNSHRUNK = [phase for phase in CI.phases if phase != Phase.shrink]
CHAPTER = [name for name in REQUIREMENTS if name.startswith("MET")]
VALUES = ("TRN-01", "RUN-02", "EVL-01")

# A reference that is wrong, and a judge that is wrong in the same way


class Mutation(NamedTuple):
    """A function of the formulas, an expression in it, what stands there instead, and the laws that this breaks."""

    function: str
    right: str
    wrong: str
    laws: str


MUTATIONS = {
    "half of the values": Mutation(
        "mean",
        "x.total() / float(x.hi.shape[-1])",
        "x[..., : x.hi.shape[-1] // 2 + 1].total() / float(x.hi.shape[-1] // 2 + 1)",
        "01 02 06 10 11 13",
    ),
    "variance divided by n - 1": Mutation(
        "biased_variance",
        "mean(deviation * deviation)",
        "(deviation * deviation).total() / float(x.hi.shape[-1] - 1)",
        "06 11 13",
    ),
    "variance about zero": Mutation("biased_variance", "x - mu", "x", "04 11"),
    "variance of the first channel": Mutation(
        "inverse_std", "var + eps", "var[:1] + var * 0.0 + eps", "03 11"
    ),
    "eps outside the root": Mutation(
        "inverse_std", "(var + eps).sqrt()", "(var.sqrt() + eps)", "05 11"
    ),
    "eps forgotten": Mutation("inverse_std", "var + eps", "var", "11"),
    "root forgotten": Mutation("inverse_std", "(var + eps).sqrt()", "(var + eps)", "05 11"),
    "not centred": Mutation("normalise", "(x - mu)", "x", "04 10 11"),
    "centred by the batch in eval": Mutation("normalise", "(x - mu)", "(x - mean(x))", "09"),
    "bias subtracted": Mutation("affine", "+ bias", "+ -bias", "07 10 11"),
    "bias forgotten": Mutation("affine", " + bias", "", "07 10 11"),
    "negative values cut off": Mutation(
        "affine", "weight * x_hat", "weight * type(x_hat)(np.maximum(x_hat.hi, 0.0))", "08 10 11"
    ),
    "momentum on the old value": Mutation(
        "blend",
        "(1.0 - momentum) * running + momentum * batch",
        "momentum * running + (1.0 - momentum) * batch",
        "11 12 13",
    ),
    "old value not shrunk": Mutation("blend", "(1.0 - momentum) * running", "running", "11 12 13"),
    "variance times n / (n + 1)": Mutation("unbiased_variance", "n - 1", "n + 1", "11 13"),
    "biased variance kept": Mutation(
        "unbiased_variance", " * float(n) / float(max(n - 1, 1))", "", "11 13"
    ),
    "channels not moved first": Mutation(
        "by_channel", "x.transpose(1, 0, 2, 3)", "x", "01 03 06 09 11 13"
    ),
}
"""Mistakes in the formulas, which the reference and the judge share."""

each_mutation = pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Replace an expression of a formula, for the reference and for the judge, which look it up there."""
    function, right, wrong, _ = mutation
    text = inspect.getsource(getattr(f, function))
    assert text.count(right) == 1
    made: dict[str, Any] = {}
    exec(text.replace(right, wrong), vars(f), made)
    with patch.object(f, function, made[function]):
        yield


def broken(requirement: str, number: int = 20) -> bool:
    (prop,) = PROPERTIES[requirement]
    cell = Cell(prop, reference, "float32", settings(CI, phases=UNSHRUNK, max_examples=number))
    try:
        cell.examine()
    except Violation:
        return True
    assert cell.judged > 0
    assert max(cell.shares.values()) <= 1
    return False


@each_mutation
def test_a_wrong_reference_breaks_laws(mutation: Mutation) -> None:
    with mutated(mutation):
        assert [name for name in CHAPTER if broken(name)] == [
            f"MET-{law}" for law in mutation.laws.split()
        ]


@each_mutation
def test_values_do_not_notice_what_is_wrong_on_either_side(mutation: Mutation) -> None:
    with mutated(mutation):
        assert not [name for name in VALUES if broken(name, 10)]


def test_a_cumulative_mean_that_is_one_batch_off_breaks_the_law_of_the_same_batch_again() -> None:
    with mutated(Mutation("update_factor", "float(batches)", "float(batches + 1)", "12")):
        assert broken("MET-12", 100)
        assert not broken("RUN-04", 10)


def test_the_reference_breaks_no_law() -> None:
    assert not [name for name in (*CHAPTER, *VALUES) if broken(name)]


def test_every_law_is_broken_by_a_wrong_reference() -> None:
    assert {
        f"MET-{law}" for mutation in MUTATIONS.values() for law in mutation.laws.split()
    } == set(CHAPTER)


@each_mutation
def test_the_reference_and_the_judge_are_wrong_in_the_same_way(mutation: Mutation) -> None:
    batches = Forward(X), Forward(doubled(X) + 1)
    case = Case(replace(CONFIG, momentum=0.25), STATE, (*batches, Eval(), *batches))
    right = play(case, reference)
    with mutated(mutation):
        wrong = play(case, reference)
        assert agrees(case, wrong)
        assert not agrees(case, right)
    assert agrees(case, right)
    assert not agrees(case, wrong)


def agrees(case: Case, observation: Observation) -> bool:
    observables = ("output", "running_mean", "running_var")
    return not judge(case, observation, observables, reference.capabilities).discrepancies


# What is changed, and what follows: exactly, in rational numbers

rational = np.vectorize(Fraction, otypes=[object])


def normalised(x: Array, eps: Fraction, weight: Array) -> Array:
    """Return weight · x̂ |x̂|, which says as much as weight · x̂ and is rational."""
    values = rational(x.astype(np.float64))
    n = values.size // values.shape[1]
    deviations = values - values.sum(axis=(0, 2, 3), keepdims=True) / n
    var = (deviations**2).sum(axis=(0, 2, 3), keepdims=True) / n
    followed: Array = weight.reshape(1, -1, 1, 1) * deviations * abs(deviations) / (var + eps)
    return followed


@st.composite
def whole_numbers(draw: st.DrawFn) -> Array:
    """Draw a batch of few small integers, or of these times a power of two."""
    family, scale = (
        draw(st.sampled_from(("small integers", "ramp"))),
        draw(st.sampled_from((0, 3, -3))),
    )
    shape = draw(
        chosen(shapes("tiny", "different", where=lambda shape: shape[1] < prod(shape) < 100))
    )
    return Recipe(family, scale, 0.0, draw(st.integers(0, 100))).make(shape, DTYPES["float32"])


@pytest.mark.parametrize("name", LAWS)
def test_what_a_law_says_follows_from_the_formula(name: str) -> None:
    law = LAWS[name]

    @examples(25)
    @given(whole_numbers(), st.sampled_from((1e-5, 0.5)))
    def follows(x: Array, eps: float) -> None:
        weight, changed = np.arange(3, 3 + x.shape[1]), law.change(x)
        assert is_exact(law, x, changed)
        after = normalised(
            changed,
            Fraction(eps) * Fraction(law.eps_factor),
            weight[::-1] if law.parameters else weight,
        )
        assert (after == law.image(normalised(x, Fraction(eps), weight))).all()

    follows()


@pytest.mark.parametrize("name", ["scaled", "channels reversed"])
def test_a_law_changes_besides_the_input_what_it_must(name: str) -> None:
    law = replace(LAWS[name], parameters=False, eps_factor=1.0)
    x, weight = np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3), np.array([3, 4])
    after = normalised(law.change(x), Fraction(1, 2) * Fraction(law.eps_factor), weight)
    assert not (after == law.image(normalised(x, Fraction(1, 2), weight))).all()


@pytest.mark.parametrize(
    ("name", "dtype", "values", "exact"),
    [
        pytest.param("shifted", "float32", [0, 1, -2.5], True, id="shifted"),
        pytest.param("shifted", "float32", [1, 2.0**-22], True, id="shifted by 2, to the last bit"),
        pytest.param("shifted", "float32", [1, 2.0**-23], False, id="shifted, one bit lost"),
        pytest.param(
            "shifted", "float32", [2.0**-23, 1], False, id="shifted, one bit of the first lost"
        ),
        pytest.param(
            "shifted", "bfloat16", [129, 2], False, id="shifted, one bit of bfloat16 lost"
        ),
        pytest.param(
            "shifted", "bfloat16", [129, 1], True, id="shifted by 255 instead of 256, but all alike"
        ),
        pytest.param(
            "shifted", "float64", [1, 2.0**-52], False, id="shifted, one bit of float64 lost"
        ),
        pytest.param("shifted", "float16", [40000, 0], False, id="shifted to infinity"),
        pytest.param("shifted", "float32", [np.nan, 1], False, id="shifted, NaN"),
        pytest.param("shifted", "float32", [np.inf, 1], False, id="shifted, infinite"),
        pytest.param("scaled", "float16", [8000, 1], True, id="scaled"),
        pytest.param("scaled", "float16", [2.0**-24, 2.0**-20], True, id="scaled, subnormal"),
        pytest.param("scaled", "float16", [9000, 1], False, id="scaled to infinity"),
        pytest.param(
            "scaled", "float64", [2.0**1021, 1], False, id="scaled to infinity in float64"
        ),
        pytest.param("scaled", "float32", [np.nan, 1], False, id="scaled, NaN"),
        pytest.param("scaled", "float32", [np.inf, 1], False, id="scaled, infinite"),
        pytest.param("twice over", "float16", [np.nan, 65504], True, id="copied"),
        pytest.param("samples reversed", "float16", [np.inf, 65504], True, id="reversed"),
    ],
)
def test_a_change_is_exact_where_it_rounds_nothing(
    name: str, dtype: str, values: list[float], exact: bool
) -> None:
    law, x = LAWS[name], np.array(values).reshape(-1, 1, 1, 1).astype(DTYPES[dtype].data.dtype)
    with np.errstate(all="ignore"):
        assert is_exact(law, x, law.change(x)) is exact


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_values_are_recognised_in_every_format(dtype: str) -> None:
    @examples(20)
    @given(
        chosen(shapes("tiny", "different", where=lambda shape: prod(shape) // shape[1] % 2 == 0))
    )
    def are_recognised(shape: tuple[int, int, int, int]) -> None:
        x = of_two_values(np.zeros(shape, DTYPES[dtype].data.dtype))
        found = two_values(x)
        assert found is not None
        centre, half, signs = (rational(part) for part in found)
        c, a = centre.reshape(1, -1, 1, 1), half.reshape(1, -1, 1, 1)
        assert (c + signs * a == rational(x.astype(np.float64))).all()
        assert (signs**2 == 1).all()
        assert (signs.sum(axis=(0, 2, 3)) == 0).all()
        assert (half > 0).all()

    are_recognised()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0, 1, 2, 1], id="three values"),
        pytest.param([0, 1, 1, 1], id="not as often"),
        pytest.param([0, 1, 1], id="an odd number of values"),
        pytest.param([3, 3, 3, 3], id="one value"),
        pytest.param([0, 0, 0, 1e-30], id="a value that is almost the other"),
        pytest.param([1, 2.0**-60, 1, 2.0**-60], id="a centre that float64 does not hold"),
        pytest.param([0, np.nan, 0, np.nan], id="NaN"),
        pytest.param([0, np.inf, 0, np.inf], id="infinite"),
    ],
)
def test_what_is_not_two_values_as_often_is_not_taken_for_it(values: list[float]) -> None:
    channels = np.array(
        [values, [1, -1] * (len(values) // 2) + [1] * (len(values) % 2)], np.float64
    )
    with np.errstate(invalid="ignore"):
        assert two_values(channels.T.reshape(-1, 2, 1, 1)) is None


# The observables

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
    assert STEPS.keys() == LAWS.keys() | OTHERS.keys()


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
    (prop,) = PROPERTIES["MET-12"]
    cell = Cell(
        prop, SPECIMENS["counter-one-dimensional"], "float32", settings(CI, max_examples=40)
    )
    cell.examine()
    assert cell.judged > 0
