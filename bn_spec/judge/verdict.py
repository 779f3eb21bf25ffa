"""What judging gave: which observables disagree, and how much of each error budget was used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Array
from bn_spec.oracle.bias import FALSE_ALARM, bias
from bn_spec.oracle.bounded import Bounded, Demand

Text: TypeAlias = Callable[[], str]


@dataclass(frozen=True)
class Discrepancy:
    """One observable of one step that is not as expected; ``factor`` is err / bound where there is a bound."""

    observable: str
    step: int
    expected: str
    got: str
    factor: float = np.inf


@dataclass
class Verdict:
    """What judging one observation gave.

    ``shares`` holds the worst err / bound by observable; ``judged`` and ``outside`` count the
    elements within and outside the domain of the bounds (an exact comparison counts as one).
    """

    discrepancies: list[Discrepancy] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    outside: int = 0

    def add(self, other: Verdict, where: str) -> None:
        """Add what judging a part gave; ``where`` says of which."""
        self.discrepancies += [replace(d, expected=d.expected + where) for d in other.discrepancies]
        self.judged += other.judged
        self.outside += other.outside
        for name, share in other.shares.items():
            self.shares[name] = max(share, self.shares.get(name, 0.0))

    def bounded(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge ``got`` element by element against a reference value with a bound."""
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
            wanted = (
                f"{place} = {_digits(expected.value.hi[worst], got)} ± {expected.bound[worst]:.1e}"
            )
            self.discrepancies.append(
                Discrepancy(observable, step, wanted, _digits(got[worst], got), factor)
            )

    def numbers(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge which elements are NaN or infinite where the data are finite; all that is left beyond the bounds."""
        self.judged += int((expected.demanded > Demand.NOTHING).sum())
        if (unmet := expected.unmet(got)).any():
            first = tuple(int(i) for i in np.argwhere(unmet)[0])
            kind = "finite" if expected.demanded[first] == Demand.FINITE else "a number"
            wanted = (
                f"{observable}[{', '.join(map(str, first))}] is {kind}, since the input is finite"
            )
            self.discrepancies.append(
                Discrepancy("numbers", step, wanted, _digits(got[first], got))
            )

    def biased(self, observable: str, step: int, got: Array, expected: Bounded) -> None:
        """Judge whether the errors of ``got`` (one channel per row) are as often too large as too small."""
        shares = expected.signed_share(got)
        self.judged += len(shares)
        away = np.sign(expected.value.hi)
        for direction, signs in (
            (("large", "small"), np.ones_like(away)),
            (("far from zero", "close to zero"), away),
        ):
            factor = bias(mean := (shares * signs).mean(axis=1))
            self.shares[observable] = max(abs(factor), self.shares.get(observable, 0.0))
            if abs(factor) > 1:
                many, which = int((mean * factor > 0).sum()), direction[factor < 0]
                self.discrepancies.append(
                    Discrepancy(
                        observable,
                        step,
                        "errors as often of either sign",
                        f"{observable.removesuffix('_bias')} too {which} in {many} of {len(mean)} independent"
                        f" channels (chance for a kernel that rounds to nearest: below {FALSE_ALARM:.0e}; one that"
                        " approximates on purpose does not claim `unbiased`)",
                        abs(factor),
                    )
                )
                return

    def exact(
        self, observable: str, step: int, agrees: bool, expected: str | Text, got: str | Text
    ) -> None:
        """Judge a comparison that allows no error; texts that cost time are given as functions."""
        self.judged += 1
        if not agrees:
            self.discrepancies.append(Discrepancy(observable, step, _text(expected), _text(got)))


def _text(text: str | Text) -> str:
    return text if isinstance(text, str) else text()


def _digits(value: float, like: Array) -> str:
    return f"{float(value):.{9 if like.dtype.itemsize <= 4 else 17}g}"
