"""Observables: what is judged of a step, one row of a table each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bn_spec.backend.claims import Capabilities
from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.laws import LAWS, OTHER_LAWS
from bn_spec.case.steps import DOUBLE_GRADIENTS, FOLDED, GRADIENTS
from bn_spec.errors import ConfigError, allowed
from bn_spec.judge.observables import answers, gradients, memory, specials
from bn_spec.judge.observables.followed_laws import law
from bn_spec.judge.observables.judged_step import JudgedStep
from bn_spec.judge.verdict import Verdict
from bn_spec.oracle.expectation import OUTPUT, PARTS, RESULTS, STATISTICS

NEVER, ALWAYS = "never", "always"
"""Values of :attr:`Observable.checked`."""


@dataclass(frozen=True)
class Observable:
    """One row of the table of observables.

    Attributes:
        name: Name in findings, records and known failures.
        judge: Judges it in one step, and adds the result to a verdict.
        parts: Parts of the expectation that it needs, of
            :data:`bn_spec.oracle.expectation.PARTS`.
        memory: Whether the player must look at memory for it.
        checked: When :func:`bn_spec.judge.check.check` judges it: :data:`ALWAYS`, :data:`NEVER`, or
            the name of the claim that a backend must make.

    """

    name: str
    judge: Callable[[Verdict, JudgedStep], None]
    parts: tuple[str, ...] = ()
    memory: bool = False
    checked: str = NEVER


_IS_STATISTIC = ("running_mean", "running_var")


def _rows() -> Iterator[Observable]:
    """Yield the rows in the order in which :func:`bn_spec.judge.check.check` judges them."""
    yield Observable("output", answers.output, (OUTPUT,), checked=ALWAYS)
    yield Observable("output_form", answers.output_form, checked=ALWAYS)
    yield Observable("handed", memory.handed, memory=True, checked=ALWAYS)
    yield Observable("overrun", memory.overrun, memory=True, checked=ALWAYS)
    yield Observable("shared", memory.shared, memory=True, checked=ALWAYS)
    yield Observable("kept", memory.kept, memory=True, checked=ALWAYS)
    yield Observable("checkpoint", answers.checkpoint, checked=ALWAYS)
    yield Observable("state_form", answers.state_form, checked=ALWAYS)
    yield Observable("refusal", answers.refusal, checked=ALWAYS)
    yield Observable("repetition", answers.repetition, checked=ALWAYS)
    yield Observable("running_var_sign", answers.running_var_sign, checked=ALWAYS)
    yield Observable("numbers", answers.numbers, PARTS, checked=ALWAYS)
    yield Observable("floating_point_mode", answers.mode, checked=ALWAYS)
    for name in STATE_FIELDS:
        parts = (STATISTICS,) if name in _IS_STATISTIC else ()
        yield Observable(name, answers.tensor(name), parts, checked=ALWAYS)
    for name in (*GRADIENTS, *DOUBLE_GRADIENTS, *FOLDED):
        yield Observable(name, gradients.result(name), (RESULTS,), checked=ALWAYS)
    yield Observable("gradient_form", gradients.gradient_form, (RESULTS,), checked=ALWAYS)
    yield Observable("gradient_linearity", gradients.gradient_linearity, (RESULTS,), checked=ALWAYS)
    yield Observable("gradient_sums", gradients.gradient_sums, (RESULTS,), checked=ALWAYS)
    for name, result in (("gradient_layout", "grad_input"), ("output_layout", "output")):
        yield Observable(name, memory.layout(name, result), checked=name)
    yield Observable("special", specials.special)
    yield Observable("elsewhere", specials.elsewhere)
    yield Observable("running_statistics_kept", answers.statistics_kept, (STATISTICS,))
    yield Observable("folded_form", gradients.folded_form)
    yield Observable("output_bias", answers.output_bias, (OUTPUT,))
    for name in _IS_STATISTIC:
        yield Observable(f"{name}_bias", answers.statistic_bias(name), (STATISTICS,))
    for name in LAWS:
        yield Observable(name, law(name), (OUTPUT,))
    for name in OTHER_LAWS:
        of_statistics = name in ("two values", "contraction", "estimator")
        yield Observable(name, law(name), PARTS if of_statistics else (OUTPUT,))


OBSERVABLES: Mapping[str, Observable] = MappingProxyType({row.name: row for row in _rows()})
"""The table of observables, by name."""


def observable_named(name: str) -> Observable:
    """Return the observable called ``name``.

    Raises:
        ConfigError: No observable has this name; the message names the nearest one.

    """
    try:
        return OBSERVABLES[name]
    except KeyError:
        raise ConfigError(allowed("observable", name, OBSERVABLES)) from None


def looks_at_memory(names: Iterable[str]) -> bool:
    """Return whether the player must look at memory for one of these observables."""
    return any(observable_named(name).memory for name in names)


def checked_observables(claims: Capabilities) -> list[str]:
    """Return the names of the observables that are checked with these claims, in order."""
    names = []
    for row in OBSERVABLES.values():
        if row.checked == NEVER:
            continue
        if row.checked == ALWAYS or getattr(claims, row.checked):
            names.append(row.name)
    return names
