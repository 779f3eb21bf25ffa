"""Cases and observations as bytes: nothing is lost, and a damaged frame is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from bn_spec.backend.claims import EVERYTHING
from bn_spec.case.config import State
from bn_spec.case.dtypes import DTYPES
from bn_spec.case.script import Case, identical
from bn_spec.case.source import array
from bn_spec.case.steps import Forward
from bn_spec.play import wire
from bn_spec.play.observation import LOOKS, Died, Malformed, Observation, Raised
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS
from bn_spec.suite.pinned import pinned

CASES = [each.case for each in pinned().values()]


def there_and_back(frame: bytes) -> tuple[Any, list[Any]]:
    start = wire.PREFIX.size
    header, size = wire.lengths(frame[:start])
    assert len(frame) == start + header + size
    return wire.unframed(frame[start : start + header], bytearray(frame[start + header :]))


def observed(case: Case, name: str) -> Observation:
    return play(case, SPECIMENS[name], LOOKS)


def same(a: object, b: object) -> bool:
    """Whether two parts of observations agree in every bit, stride and word."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.tobytes() == b.tobytes() and (a.dtype, a.shape, a.strides) == (
            b.dtype,
            b.shape,
            b.strides,
        )
    if isinstance(a, State) and isinstance(b, State):
        return all(same(x, y) for (_, x), (_, y) in zip(a.items(), b.items(), strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def agree(one: Observation, other: Observation) -> bool:
    parts = [part.name for part in fields(one.answers[0])[1:]] if one.answers else []
    return same(one.initial, other.initial) and all(
        a.step is b.step and same(getattr(a, part), getattr(b, part))
        for a, b in zip(one.answers, other.answers, strict=True)
        for part in parts
    )


def returned(observation: Observation, case: Case) -> Observation:
    """Return an observation after it has travelled, as it does beside the arrays of its case."""
    _, given = wire.of_cases([case])
    script, arrays = wire.of_observations([observation], given)
    script, arrays = there_and_back(wire.frame(script, arrays))
    return wire.to_observations(script, [*given, *arrays], [case])[0]


def test_cases_of_every_kind_of_step_layout_and_dtype_travel_unchanged() -> None:
    script, arrays = there_and_back(wire.frame(*wire.of_cases(CASES)))
    assert all(map(identical, wire.to_cases(script, arrays), CASES))
    assert {case.config.dtype for case in CASES} <= DTYPES.keys()
    assert len({type(step) for case in CASES for step in case.steps}) > 8


@pytest.mark.parametrize("name", ["two-pass-pairwise", "runvar-bias"])
def test_what_was_observed_travels_unchanged(name: str) -> None:
    assert SPECIMENS[name].capabilities.dtypes == EVERYTHING.dtypes
    cases = CASES[::3]
    assert all(agree(observed(case, name), returned(observed(case, name), case)) for case in cases)


@pytest.mark.parametrize(
    "oddity",
    [Raised(("ValueError", "Exception"), "so \udcff"), Malformed("no tensor"), Died(1, "killed")],
)
def test_oddities_travel_unchanged(oddity: Raised | Malformed | Died) -> None:
    assert returned(Observation(oddity, ()), CASES[0]).initial == oddity


def test_an_array_that_cannot_travel_arrives_as_one_that_is_as_wrong() -> None:
    state = State(weight=np.array(["a", "b"]), bias=np.array([None, 1]))
    arrived = returned(Observation(state, ()), CASES[0]).initial
    assert isinstance(arrived, State)
    assert all(a.shape == (2,) and a.dtype.kind == "O" for a in arrived.tensors().values())


def test_what_a_case_handed_over_is_not_sent_back() -> None:
    case = next(case for case in CASES if isinstance(case.steps[0], Forward))
    _, given = wire.of_cases([case])
    observation = play(case, SPECIMENS["two-pass-pairwise"], LOOKS)
    _, arrays = wire.of_observations([observation], given)
    handed = observation.answers[0].handed["input"][0]
    assert all(a is not handed for a in arrays)


def content(frame: bytes) -> tuple[bytes, bytes]:
    start = wire.PREFIX.size
    header, _ = wire.lengths(frame[:start])
    return frame[start : start + header], frame[start + header :]


def test_a_damaged_frame_is_refused_or_read_and_nothing_else() -> None:
    header, memory = content(wire.frame(*wire.of_cases(CASES[:3])))
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(header)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            wire.to_cases(*wire.unframed(damaged, bytearray(memory)))
        except wire.WireError:
            refused += 1
    assert refused > 100


KIND = ("<f4", [2], None, 8)


@pytest.mark.parametrize(
    "kinds",
    [
        [("<f4", [2**40], None, 2**42)],
        [("<f4", [2], [2**40], 8)],
        [("<f4", [-2], None, 8)],
        [("|O", [1], None, 8)],
        [("nonesuch", [1], None, 8)],
        [KIND, KIND],
        [None],
        7,
    ],
)
def test_arrays_that_are_not_there_are_refused(kinds: Sequence[object]) -> None:
    with pytest.raises(wire.WireError, match="not a frame, or a damaged one"):
        wire.unframed(json.dumps((None, kinds)).encode(), bytearray(8))


@pytest.mark.parametrize(
    "script",
    [
        None,
        [[7, []]],
        [[{"state": [1]}, []]],
        [[{"state": [{"malformed": "x"}] * 5}, []]],
        [[{"raised": "x"}, []]],
        [[None, []]],
        [[{"malformed": "x"}, [[True]]]],
        [],
    ],
)
def test_what_is_no_observation_is_refused(script: object) -> None:
    with pytest.raises(wire.WireError):
        wire.to_observations(script, [array([1.0], (1,))], CASES[:1])


@pytest.mark.parametrize("prefix", [b"x" * 16, wire.PREFIX.pack(b"bn1\n", 2**31, 0)])
def test_what_does_not_start_a_frame_is_refused(prefix: bytes) -> None:
    with pytest.raises(wire.WireError, match="not the start of a frame"):
        wire.lengths(prefix)
