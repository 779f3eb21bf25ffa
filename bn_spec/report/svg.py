"""The pictures of a report as SVG: small, of few marks, coloured by the page that they stand in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, inf, isfinite, log10
from typing import TypeAlias

from bn_spec.oracle.bounds import GRADES

Scale: TypeAlias = Callable[[float], float]
"""From a value to its place on an axis."""

# Elements


def element(name: str, *content: str, **attributes: object) -> str:
    """Return an element; underscores in the names of attributes are hyphens, one at the end is none."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{given}>{''.join(content)}</{name}>"


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> str:
    """Return a text."""
    return element("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor)


# How err / bound is distributed

BINS = 8
"""Per decade."""

FIRST, LAST = -4, 1
"""Decades between which values are told apart; others count with the outermost."""

_HEIGHT = 30


def bins(values: Iterable[float]) -> Counter[int]:
    """Count values in bins of equal width on a logarithmic axis: bin 0 ends at 1, the limit, which it includes."""
    return Counter(_bin(value) for value in values)


def _bin(value: float) -> int:
    lowest, highest = FIRST * BINS, LAST * BINS + 1
    if not value > 0:
        return highest if value != value else lowest
    exact = inf if value == inf else log10(value) * BINS
    return lowest if exact <= lowest else highest if exact > highest - 1 else -floor(-exact)


def distribution(values: Sequence[float], label: str) -> str:
    """Return a histogram of err / bound on a logarithmic axis, as wide as there is room; bars grow like a root."""
    counts = bins(values)
    lowest, most = FIRST * BINS, max(counts.values(), default=1)
    marks = [
        element(
            "path",
            d="".join(_bar(n, counts[n] / most) for n in sorted(counts) if n <= 0),
            class_="bar",
        ),
        element(
            "path",
            d="".join(_bar(n, counts[n] / most) for n in sorted(counts) if n > 0),
            class_="bar beyond",
        ),
        element("path", d=f"M{1 - lowest},0V{_HEIGHT}", class_="limit"),
    ]
    width = (LAST - FIRST) * BINS + 2
    return element(
        "svg",
        element("title", escape(label)),
        *marks,
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        class_="distribution",
    )


def _bar(number: int, share: float) -> str:
    height = max(_HEIGHT * share**0.5, 1.5)
    return f"M{number - FIRST * BINS + 0.1:.1f},{_HEIGHT}v{-height:.1f}h0.8v{height:.1f}z"


def position(value: float) -> float:
    """Return where a value lies on that axis, in percent of its width."""
    return 100 * (log10(value) * BINS - FIRST * BINS + 1) / ((LAST - FIRST) * BINS + 2)


# Errors against conditioning

_LEFT, _TOP, _RIGHT, _BOTTOM = 40.0, 10.0, 274.0, 150.0
_FLOOR = 1e-4
"""Where an error of nothing is drawn."""


@dataclass(frozen=True)
class Decade:
    """The worst error at a decade of |mean| / σ, as a multiple of the two-pass bound, and the bound of each grade."""

    exponent: int
    error: float
    bounds: Mapping[str, float]


def decades(conditioning: Mapping[str, Mapping[str, float]]) -> list[Decade]:
    """Return what can be drawn of a record's ``conditioning``, in order; the bounds are ratios of shares."""
    found = []
    for name, shares in conditioning.items():
        exponent, error = _exponent(name), shares.get(GRADES[0], 0.0)
        if exponent is None or not isfinite(error):
            continue
        ratios = {
            grade: error / shares[grade] for grade in GRADES if 0 < shares.get(grade, 0.0) < inf
        }
        found.append(Decade(exponent, error, ratios | {GRADES[0]: 1.0}))
    return sorted(found, key=lambda each: each.exponent)


def _exponent(name: str) -> int | None:
    digits = name.rpartition("1e")[2] if "1e" in name else ""
    return int(digits) if digits.lstrip("-").isdecimal() and len(digits) < 4 else None


def conditioning(
    found: Sequence[Decade], claimed: str, exponents: tuple[int, int], top: float, label: str
) -> str:
    """Return a plot of the worst error by decade, with the bounds of the grades; both axes are logarithmic.

    ``claimed`` is the grade whose bound is to stand out, ``exponents`` the first and the last
    decade, ``top`` the largest error that is drawn at its place.
    """
    first, last = exponents[0], exponents[1] + 1

    def x(exponent: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (exponent - first) / (last - first)

    def y(value: float) -> float:
        share = (log10(min(max(value, _FLOOR), top)) - log10(_FLOOR)) / (log10(top) - log10(_FLOOR))
        return _BOTTOM - (_BOTTOM - _TOP) * share

    marks = [*_frame(x, y, (first, last), top)]
    marks.append(element("path", d=f"M{_LEFT},{y(1):.1f}H{_RIGHT}", class_=f"bound {GRADES[0]}"))
    for grade in GRADES:
        steps = [(each.exponent, y(each.bounds[grade])) for each in found if grade in each.bounds]
        marks.append(
            element(
                "path", d=_steps(steps, x), class_=f"bound {grade}{' claimed' * (grade == claimed)}"
            )
        )
    for each in found:
        beyond, at = each.error > top, (x(each.exponent + 0.5), y(each.error))
        arrow = text(at[0], at[1] + 7, "▲", "beyond", "middle")
        marks.append(
            arrow if beyond else element("circle", cx=at[0], cy=at[1], r=2.8, class_="error")
        )
    return element(
        "svg",
        element("title", escape(label)),
        *marks,
        viewBox="0 0 284 186",
        role="img",
        class_="plot",
    )


def _steps(steps: Sequence[tuple[int, float]], x: Scale) -> str:
    """Return a path that is level in each decade, and broken where one is missing."""
    parts, before = [], None
    for exponent, height in steps:
        parts.append(
            f"{'L' if before == exponent - 1 else 'M'}{x(exponent):.1f},{height:.1f}H{x(exponent + 1):.1f}"
        )
        before = exponent
    return "".join(parts)


def _frame(x: Scale, y: Scale, exponents: tuple[int, int], top: float) -> Iterator[str]:
    """Yield grid and labels: every second decade where there are many."""
    first, last = exponents
    for exponent in range(round(log10(_FLOOR)), round(log10(top)) + 1):
        height = y(10.0**exponent)
        if exponent % 2 == 0:
            yield element("path", d=f"M{_LEFT},{height:.1f}H{_RIGHT}", class_="grid")
            yield text(_LEFT - 5, height + 3.5, _power(exponent), "tick", "end")
    step = 1 if last - first <= 8 else 2
    for exponent in range(first, last + 1, step):
        yield text(x(exponent), _BOTTOM + 15, _power(exponent), "tick", "middle")
    yield text((_LEFT + _RIGHT) / 2, _BOTTOM + 31, "|mean| / σ", "axis", "middle")


def _power(exponent: int) -> str:
    plain = {0: "1", 1: "10"}
    return plain.get(
        exponent, "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )
