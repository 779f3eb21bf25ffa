"""Observation against expectation, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from types import UnionType

import numpy as np

from bn_spec.case.arrays import same_bits
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import is_floating
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, DoubleBackward, Forward, Step, config_after
from bn_spec.judge.observables import observable_named
from bn_spec.judge.observables.judged_step import JudgedStep, exact_tensor, shown
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.bounds import Accuracy
from bn_spec.oracle.expectation import PARTS, Context, Expectation, Past, drift, expect
from bn_spec.play.observation import CONSTRUCTION, Died, Observation, Raised


@np.errstate(all="ignore")  # NaN in an answer is judged, not announced
def judge(
    case: Case,
    observation: Observation,
    observables: Iterable[str],
    claims: Accuracy,
    *,
    kind: type[Step] | UnionType | None = None,
) -> Verdict:
    """Judge the named observables of every step of an observation, or of those of a kind.

    Raises:
        ConfigError: an observable is not one of :data:`bn_spec.judge.observables.OBSERVABLES`.

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
"""The observable of a case in which the process of the backend died."""


def judge_survival(verdict: Verdict, *observations: Observation) -> bool:
    """Judge whether the process of the backend died: that is never right, whatever else is judged."""
    deaths = [
        observation.initial for observation in observations if isinstance(observation.initial, Died)
    ]
    for died in deaths[:1]:
        verdict.exact(SURVIVAL, died.step, False, "an answer", str(died))
    return bool(deaths)


NOTHING_EXPECTED = Expectation(State())


def steps(
    case: Case, observation: Observation, claims: Accuracy, parts: Collection[str] = PARTS
) -> Iterator[JudgedStep]:
    """Yield each answer with what was to be expected; nothing is of a state that does not fit the config.

    Ends before the gradient of a forward that must be refused.
    """
    so_far: tuple[JudgedStep, ...] = ()
    past, given = Past(), case.config
    for index, answer in enumerate(observation.answers):
        given = config_after(given, answer.step)
        config = claims.dialect.as_stored(given)
        forward = (
            past.forwards[answer.step.of]
            if isinstance(answer.step, Backward | DoubleBackward)
            else None
        )
        if forward and forward.refused:
            return
        expected = NOTHING_EXPECTED
        if not _misshapen(config, answer.before):
            expected = expect(
                config, answer.before, answer.training, answer.step, claims, past, parts
            )
        step = JudgedStep(config, index, answer, expected, so_far, claims, forward)
        yield step
        so_far = (
            *so_far,
            step,
        )  # a list that all share would hold them, and all arrays, in a cycle
        if isinstance(answer.step, Forward):
            refused = expected.refusal is not None
            past.forwards.append(
                Context(config, answer.before, answer.training, answer.step, refused)
            )
        elif expected.checkpoint is not None:
            past.checkpoints.append(expected.checkpoint)


def judge_construction(case: Case, observation: Observation, tensors: Iterable[str]) -> Verdict:
    """Judge the named tensors of a layer that has just been built, bitwise."""
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
    """Judge what the running statistics and the counter are after all steps, none of which was looked at."""
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
        if (
            isinstance(got, np.ndarray)
            and is_floating(got.dtype)
            and got.shape == bounded.bound.shape
        ):
            verdict.bounded(name, last, got, bounded)
        else:
            exact_tensor(verdict, name, last, getattr(initial, name), got)
    counter = "num_batches_tracked"
    exact_tensor(
        verdict, counter, last, expected.state.num_batches_tracked, getattr(after, counter, None)
    )
    return verdict


def judge_repetition(first: Observation, again: Observation) -> Verdict:
    """Judge whether two observations of a case are the same, bit for bit."""
    verdict = Verdict()
    if judge_survival(verdict, first, again):
        return verdict
    for index, (one, other) in enumerate(zip(first.answers, again.answers, strict=False)):
        states = (dict(a.after.items()) if isinstance(a.after, State) else {} for a in (one, other))
        for name, wanted, got in chain(
            _side_by_side(one.returned(), other.returned()), _side_by_side(*states)
        ):
            if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray):
                agrees = same_bits(wanted, got)
            else:
                agrees = type(wanted) is type(got)
            same = partial(shown, wanted, f"{name} again ")
            verdict.exact("repetition", index, agrees, same, partial(shown, got))
    answered, again_answered = len(first.answers), len(again.answers)
    if answered != again_answered:
        last = min(answered, again_answered) - 1
        verdict.exact(
            "repetition", last, False, f"{answered} steps answered again", f"{again_answered}"
        )
    return verdict


def _side_by_side(
    once: Mapping[str, object], again: Mapping[str, object]
) -> Iterator[tuple[str, object, object]]:
    return ((name, wanted, again.get(name)) for name, wanted in once.items())


def _misshapen(config: Config, state: State) -> str | None:
    """Return a sentence about the first tensor that no layer of this config can hold, or None."""
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
