"""Histories of a small layer, and how they are judged."""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any

import numpy as np

from bn_spec import Backend, Case, Config, Layer, State
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.dtypes import Array
from bn_spec.case.steps import Step
from bn_spec.judge.judging import judge
from bn_spec.judge.verdict import Discrepancy
from bn_spec.oracle.bounds import Accuracy
from bn_spec.play.player import play
from tests.spoilt_backends import spoilt

X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
ONE, TWO, THREE, FOUR = (np.full(2, number, np.float32) for number in (1, 2, 3, 4))
STATE = State(FOUR, TWO, THREE, TWO, np.array(5))
OTHER = State(THREE, ONE, FOUR, THREE, np.array(7))
CLAIMS = Accuracy("two-pass")
OUTPUTS = ("output", "refusal", *STATE_FIELDS)
STATISTICS = STATE_FIELDS[2:]


def case_of(*steps: Step, **config: Any) -> Case:
    return Case(Config(2, **config), None, steps)


def judged(
    case: Case, backend: Backend, *observables: str, kind: type[Step] | UnionType | None = None
) -> list[Discrepancy]:
    return judge(case, play(case, backend), observables or OUTPUTS, CLAIMS, kind=kind).discrepancies


def places(discrepancies: list[Discrepancy]) -> list[tuple[str, int]]:
    return [(d.observable, d.step) for d in discrepancies]


def layer_of(build: Callable[[Any], None]) -> Backend:
    """The reference, with every layer changed by a function once it is built."""

    def layer(original: Callable[..., Layer], *arguments: object) -> Layer:
        made = original(*arguments)
        build(made)
        return made

    return spoilt("layer", layer)


def without(name: str) -> Callable[..., None]:
    """Load all tensors but one."""

    def loading(load: Callable[..., None], tensors: Mapping[str, Array], *, strict: bool) -> None:
        load(
            {other: a for other, a in tensors.items() if other != name},
            strict=strict and name not in tensors,
        )

    return loading
