"""Verdicts: which observables differ from the expectation, and how much of each bound is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array
from bn_spec.oracle.bias import FALSE_ALARM, bias
from bn_spec.oracle.bounded import Bounded, Demand

Text: TypeAlias = Callable[[], str]
"""A text that takes time to make."""


@dataclass(frozen=True)
class Discrepancy:
    """One observable of one step that differs from its expectation.

    Attributes:
        observable: Name of the observable.
        step: Index of the step, or :data:`bn_spec.play.observation.CONSTRUCTION`.
        expected: What was expected.
        got: What was answered.
        factor: err / bound at the worst element; infinite if there is no bound.

    """

    observable: str
    step: int
    expected: str
    got: str
    factor: float = np.inf


@dataclass
class Verdict:
    """The result of judging one observation.

    Attributes:
        discrepancies: What differs from the expectation.
        shares: By observable, the largest err / bound of an element.
        judged: Number of elements with a bound, and of exact comparisons.
        outside: Number of elements outside the domain of the bounds.

    """

    discrepancies: list[Discrepancy] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    outside: int = 0

    def add(self, other: Verdict, where: str) -> None:
        """Add the verdict on a part of the case.

        Args:
            other: The verdict.
            where: Phrase that says which part it is, with a space before it.

        """
        self.discrepancies += [replace(d, expected=d.expected + where) for d in other.discrepancies]
        self.judged += other.judged
        self.outside += other.outside
        for name, share in other.shares.items():
            self.shares[name] = max(share, self.shares.get(name, 0.0))

    def bounded(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge an answer, element by element, against reference values with bounds.

        Args:
            observable: Name of the observable.
            step: Index of the step.
            got: The answer.
            expected: The reference values and bounds, in the shape of the answer.

        """
        share = expected.share(got)
        inside = int(expected.inside.sum())
        self.judged += inside
        self.outside += share.size - inside
        if not share.size:
            return
        worst = np.unravel_index(int(share.argmax()), share.shape)
        factor = float(share[worst])
        self.shares[observable] = max(factor, self.shares.get(observable, 0.0))
        if factor > 1:
            place = f"{observable}[{', '.join(map(str, worst))}]"
            value = _digits(expected.value.hi[worst], got)
            wanted = f"{place} = {value} ± {expected.bound[worst]:.1e}"
            found = _digits(got[worst], got)
            self.discrepancies.append(Discrepancy(observable, step, wanted, found, factor))

    def numbers(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge whether elements are finite, or at least not NaN, where the input is finite.

        Outside the domain of the bounds, nothing else is judged.
        """
        self.judged += int((expected.demanded > Demand.NOTHING).sum())
        unmet = expected.unmet(got)
        if unmet.any():
            first = tuple(int(i) for i in np.argwhere(unmet)[0])
            place = f"{observable}[{', '.join(map(str, first))}]"
            kind = "finite" if expected.demanded[first] == Demand.FINITE else "a number"
            wanted = f"{place} is {kind}, since the input is finite"
            found = _digits(got[first], got)
            self.discrepancies.append(Discrepancy("numbers", step, wanted, found))

    def biased(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge whether errors are as often too large as too small.

        They must also be as often too far from zero as too close to zero. The channels are assumed
        to be independent, and the numbers of a channel are not.

        Args:
            observable: Name of the observable, which ends in ``_bias``.
            step: Index of the step.
            got: The answer, with one channel per row.
            expected: The reference values and bounds, in the shape of the answer.

        """
        shares = expected.signed_share(got)
        self.judged += len(shares)
        away = np.sign(expected.value.hi)
        for directions, signs in (
            (("large", "small"), np.ones_like(away)),
            (("far from zero", "close to zero"), away),
        ):
            mean = (shares * signs).mean(axis=1)
            factor = bias(mean)
            self.shares[observable] = max(abs(factor), self.shares.get(observable, 0.0))
            if abs(factor) > 1:
                many = int((mean * factor > 0).sum())
                which = directions[1] if factor < 0 else directions[0]
                found = (
                    f"{observable.removesuffix('_bias')} too {which} in {many} of {len(mean)}"
                    " independent channels (probability for a kernel that rounds to nearest:"
                    f" below {FALSE_ALARM:.0e}; a kernel that approximates on purpose should claim"
                    " unbiased=False)"
                )
                wanted = "errors as often of either sign"
                self.discrepancies.append(Discrepancy(observable, step, wanted, found, abs(factor)))
                return

    def exact(
        self, observable: str, step: int, agrees: bool, expected: str | Text, got: str | Text
    ) -> None:
        """Judge a comparison that allows no error.

        Args:
            observable: Name of the observable.
            step: Index of the step.
            agrees: The result of the comparison.
            expected: What was expected: a text, or a function if the text takes time to make.
            got: What was answered, likewise.

        """
        self.judged += 1
        if not agrees:
            self.discrepancies.append(Discrepancy(observable, step, _text(expected), _text(got)))


def _text(text: str | Text) -> str:
    return text if isinstance(text, str) else text()


def _digits(value: float, like: Array) -> str:
    """Return a number with enough digits to tell it from its neighbours in a dtype."""
    digits = 9 if like.dtype.itemsize <= 4 else 17
    return f"{float(value):.{digits}g}"
