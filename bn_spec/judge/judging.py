"""Judging: an observation is compared with its expectation, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from types import UnionType

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import is_floating
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, DoubleBackward, Forward, Step, config_after
from bn_spec.judge.observables import observable_named
from bn_spec.judge.observables.judged_step import JudgedStep, exact_tensor, shown, well_formed
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import PARTS, Context, Expectation, Past, drift, expect
from bn_spec.play.observation import CONSTRUCTION, Answer, Died, Observation, Raised


@np.errstate(all="ignore")  # answers may have NaN and infinity, and NumPy must not warn of them
def judge(
    case: Case,
    observation: Observation,
    observables: Iterable[str],
    claims: Accuracy,
    *,
    kind: type[Step] | UnionType | None = None,
) -> Verdict:
    """Judge observables of the steps of an observation.

    Judging ends at a step that raised an error without reason, or whose state does not fit the
    config.

    Args:
        case: The case.
        observation: Its observation.
        observables: Names of :data:`bn_spec.judge.observables.OBSERVABLES`.
        claims: The claims of the backend about its arithmetic.
        kind: Class of the steps that are judged; all are if it is None.

    Raises:
        ConfigError: An observable is unknown.

    """
    observables = tuple(observables)
    rows = [observable_named(name) for name in observables]
    parts = {part for row in rows for part in row.parts}
    verdict = Verdict()
    if judge_survival(verdict, observation):
        return verdict
    if not isinstance(observation.initial, State):
        verdict.exact("construction", CONSTRUCTION, False, "a layer", str(observation.initial))
    for step in steps(case, observation, claims, parts):
        if step.expected is NOTHING_EXPECTED:
            sentence = str(_misshapen(step.config, step.answer.before))
            verdict.exact("state", step.index - 1, False, "a state that fits the config", sentence)
            break
        if isinstance(step.answer.error, Raised) and step.expected.refusal is None:
            verdict.exact("error", step.index, False, "no error", str(step.answer.error))
            break
        if kind is None or isinstance(step.answer.step, kind):
            for row in rows:
                row.judge(verdict, step)
    return verdict


SURVIVAL = "survival"
"""Name of the observable that says whether the process of the backend survived."""


def judge_survival(verdict: Verdict, *observations: Observation) -> bool:
    """Judge whether the process of the backend survived, and return whether it died.

    The death of the process is a discrepancy, whatever else is judged.
    """
    for observation in observations:
        died = observation.initial
        if isinstance(died, Died):
            verdict.exact(SURVIVAL, died.step, False, "an answer", str(died))
            return True
    return False


NOTHING_EXPECTED = Expectation(State())
"""The expectation of a step before which the state does not fit the config."""


def steps(
    case: Case, observation: Observation, claims: Accuracy, parts: Collection[str] = PARTS
) -> Iterator[JudgedStep]:
    """Yield each answer with its expectation.

    The expectation of a step starts from the state that the layer itself had before the step. If
    that state does not fit the config, it is :data:`NOTHING_EXPECTED`. The steps end before a
    backward of a forward that must be refused.

    Args:
        case: The case.
        observation: Its observation.
        claims: The claims of the backend about its arithmetic.
        parts: The parts of the expectation that are computed, of
            :data:`bn_spec.oracle.expectation.PARTS`.

    """
    so_far: tuple[JudgedStep, ...] = ()
    past, config = Past(), case.config
    for index, answer in enumerate(observation.answers):
        asked, before, training = answer.step, answer.before, answer.training
        config = config_after(config, asked)
        stored = claims.dialect.as_stored(config)
        forward = None
        if isinstance(asked, Backward | DoubleBackward):
            forward = past.forwards[asked.of]
            if forward.refused:
                return
        expected = NOTHING_EXPECTED
        if not _misshapen(stored, before):
            expected = expect(stored, before, training, asked, claims, past, parts)
        step = JudgedStep(stored, index, answer, expected, so_far, claims, forward)
        yield step
        # A tuple: a list that all steps share would be a cycle, which keeps all arrays alive.
        so_far = (*so_far, step)
        if isinstance(asked, Forward):
            refused = expected.refusal is not None
            past.forwards.append(Context(stored, before, training, asked, refused))
        elif expected.checkpoint is not None:
            past.checkpoints.append(expected.checkpoint)


def judge_construction(case: Case, observation: Observation, tensors: Iterable[str]) -> Verdict:
    """Judge the tensors of a newly built layer, bit by bit.

    Args:
        case: The case.
        observation: Its observation.
        tensors: Names of the tensors, of :data:`bn_spec.case.config.STATE_FIELDS`.

    """
    verdict = Verdict()
    if judge_survival(verdict, observation):
        return verdict
    wanted = case.state or initial_state(case.config)
    for name in tensors:
        if isinstance(observation.initial, State):
            got = getattr(observation.initial, name)
            exact_tensor(verdict, name, CONSTRUCTION, getattr(wanted, name), got)
        else:
            verdict.exact(name, CONSTRUCTION, False, "a layer", str(observation.initial))
    return verdict


@np.errstate(all="ignore")
def judge_drift(case: Case, observation: Observation, claims: Accuracy) -> Verdict:
    """Judge the running statistics and the counter after all steps.

    The states between the steps play no part, and need not have been observed.

    Args:
        case: The case.
        observation: Its observation.
        claims: The claims of the backend about its arithmetic.

    """
    verdict = Verdict()
    if judge_survival(verdict, observation):
        return verdict
    initial, last = observation.initial, len(observation.answers) - 1
    if not isinstance(initial, State) or _misshapen(case.config, initial):
        return judge(case, observation, (), claims)
    for index, answer in enumerate(observation.answers):
        if isinstance(answer.error, Raised):
            verdict.exact("error", index, False, "no error", str(answer.error))
            return verdict
    after = observation.answers[-1].after if observation.answers else initial
    expected = drift(case, initial, claims)
    for name in ("running_mean", "running_var"):
        bounded, got = getattr(expected, name), getattr(after, name, None)
        if well_formed(got, bounded.bound.shape):
            verdict.bounded(name, last, got, bounded)
        else:
            exact_tensor(verdict, name, last, getattr(initial, name), got)
    counter, wanted = "num_batches_tracked", expected.state.num_batches_tracked
    exact_tensor(verdict, counter, last, wanted, getattr(after, counter, None))
    return verdict


def judge_repetition(first: Observation, again: Observation) -> Verdict:
    """Judge whether two observations of a case are the same, bit by bit."""
    verdict = Verdict()
    if judge_survival(verdict, first, again):
        return verdict
    for index, (one, other) in enumerate(zip(first.answers, again.answers, strict=False)):
        for name, wanted, got in _side_by_side(one, other):
            if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray):
                agrees = same_bits(wanted, got)
            else:
                agrees = type(wanted) is type(got)
            same = partial(shown, wanted, f"{name} again ")
            verdict.exact("repetition", index, agrees, same, partial(shown, got))
    answered, again_answered = len(first.answers), len(again.answers)
    if answered != again_answered:
        last = min(answered, again_answered) - 1
        wanted = f"{answered} steps answered again"
        verdict.exact("repetition", last, False, wanted, f"{again_answered}")
    return verdict


def _side_by_side(one: Answer, other: Answer) -> Iterator[tuple[str, object, object]]:
    """Yield by name what one answer and the other have: results, then the state afterwards."""
    for once, again in ((one.returned(), other.returned()), (_tensors(one), _tensors(other))):
        for name, tensor in once.items():
            yield name, tensor, again.get(name)


def _tensors(answer: Answer) -> Mapping[str, object]:
    """Return the state after a step by name; nothing if it could not be read."""
    return dict(answer.after.items()) if isinstance(answer.after, State) else {}


def _misshapen(config: Config, state: State) -> str | None:
    """Return a sentence about the first tensor that does not fit the config, or None."""
    shapes = initial_state(config)
    for name, wanted in shapes.items()[:4]:
        got = getattr(state, name)
        if got is None or wanted is None:
            if got is not wanted:
                return f"{name} is {'None' if got is None else 'present'}"
        elif got.shape != wanted.shape or not is_floating(got.dtype):
            return f"{name} has shape {got.shape} and dtype {got.dtype}"
    counter = state.num_batches_tracked
    if counter is not None and (counter.size != 1 or counter.dtype.kind not in "iuf"):
        return f"num_batches_tracked has shape {counter.shape} and dtype {counter.dtype}"
    return None
