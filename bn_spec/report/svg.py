"""The pictures of a report as SVG; the style sheet of the page sets their colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, inf, isfinite, isnan, log10
from typing import TypeAlias

from bn_spec.oracle.bounds import GRADES

Scale: TypeAlias = Callable[[float], float]
"""Function from a value to its place on an axis."""

# Elements


def element(name: str, *content: str, **attributes: object) -> str:
    """Return an element.

    An underscore at the end of an attribute's name is dropped, so that ``class_`` sets ``class``;
    every other underscore becomes a hyphen.
    """
    parts = []
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f' {attribute}="{escape(_number(value))}"')
    return f"<{name}{''.join(parts)}>{''.join(content)}</{name}>"


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> str:
    """Return a text element."""
    return element("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor)


# Distribution of err / bound

BINS = 8
"""Bins per decade."""

FIRST, LAST = -4, 1
"""Exponents of ten at the ends of the axis; values beyond them count in the outermost bins."""

_HEIGHT = 30
"""Height of the histogram, in units of its view box."""


def bins(values: Iterable[float]) -> Counter[int]:
    """Count values in bins of equal width on a logarithmic axis.

    Bin 0 ends at 1, the limit, and includes it, so that every bin above 0 holds violations only.
    """
    return Counter(_bin(value) for value in values)


def _bin(value: float) -> int:
    lowest, highest = FIRST * BINS, LAST * BINS + 1
    if isnan(value):
        return highest  # NaN is a violation
    if value <= 0:
        return lowest  # zero has no logarithm
    exact = inf if value == inf else log10(value) * BINS
    if exact <= lowest:
        return lowest
    if exact > highest - 1:
        return highest
    return ceil(exact)


def distribution(values: Sequence[float], label: str) -> str:
    """Return a histogram of err / bound on a logarithmic axis.

    The height of a bar is the square root of its count, so that single values remain visible.
    """
    counts = bins(values)
    lowest, most = FIRST * BINS, max(counts.values(), default=1)
    within = "".join(_bar(n, counts[n] / most) for n in sorted(counts) if n <= 0)
    beyond = "".join(_bar(n, counts[n] / most) for n in sorted(counts) if n > 0)
    marks = [
        element("path", d=within, class_="bar"),
        element("path", d=beyond, class_="bar beyond"),
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
    """Return the outline of a bar; even a rare value is 1.5 units high."""
    height = max(_HEIGHT * share**0.5, 1.5)
    return f"M{number - FIRST * BINS + 0.1:.1f},{_HEIGHT}v{-height:.1f}h0.8v{height:.1f}z"


def position(value: float) -> float:
    """Return the place of a value on the axis of a distribution, in percent of its width."""
    return 100 * (log10(value) * BINS - FIRST * BINS + 1) / ((LAST - FIRST) * BINS + 2)


# Errors against conditioning

_LEFT, _TOP, _RIGHT, _BOTTOM = 40.0, 10.0, 274.0, 150.0
"""Edges of the plot, in units of its view box."""

_FLOOR = 1e-4
"""Lower end of the axis of errors; smaller errors and zero are drawn there."""


@dataclass(frozen=True)
class Decade:
    """Worst error in a decade of |mean| / σ, and the bounds of the grades.

    Attributes:
        exponent: Exponent of ten of the decade.
        error: Worst error, as a multiple of the two-pass bound.
        bounds: Bound of each grade, as a multiple of the two-pass bound.

    """

    exponent: int
    error: float
    bounds: Mapping[str, float]


def decades(conditioning: Mapping[str, Mapping[str, float]]) -> list[Decade]:
    """Return the decades of a record's ``conditioning`` that can be drawn, in order.

    The record has err / bound for each grade. With the two-pass bound as the unit, the error is
    its share under that bound, and the bound of another grade is the ratio of the two shares.
    """
    found = []
    for name, shares in conditioning.items():
        exponent, error = _exponent(name), shares.get(GRADES[0], 0.0)
        if exponent is None or not isfinite(error):
            continue
        bounds = {
            grade: error / shares[grade] for grade in GRADES if 0 < shares.get(grade, 0.0) < inf
        }
        bounds[GRADES[0]] = 1.0
        found.append(Decade(exponent, error, bounds))
    return sorted(found, key=lambda each: each.exponent)


def _exponent(name: str) -> int | None:
    """Return the exponent in the name of a decade, as in ``mean/σ 1e3``, or None."""
    digits = name.rpartition("1e")[2] if "1e" in name else ""
    return int(digits) if digits.lstrip("-").isdecimal() and len(digits) < 4 else None


def conditioning(
    found: Sequence[Decade], claimed: str, exponents: tuple[int, int], top: float, label: str
) -> str:
    """Return a plot of the worst error by decade, with the bounds of the grades.

    Both axes are logarithmic.

    Args:
        found: The decades to draw.
        claimed: Grade whose bound is drawn bold.
        exponents: Exponents of the first and the last decade of the axis.
        top: Largest error on the axis; a larger one is drawn at its end as an arrow.
        label: Title of the plot.

    """
    first, last = exponents[0], exponents[1] + 1

    def x(exponent: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (exponent - first) / (last - first)

    def y(value: float) -> float:
        share = (log10(min(max(value, _FLOOR), top)) - log10(_FLOOR)) / (log10(top) - log10(_FLOOR))
        return _BOTTOM - (_BOTTOM - _TOP) * share

    marks = [*_frame(x, y, (first, last), top)]
    # The two-pass bound is the unit, so its line crosses the whole plot.
    marks.append(element("path", d=f"M{_LEFT},{y(1):.1f}H{_RIGHT}", class_=f"bound {GRADES[0]}"))
    for grade in GRADES:
        steps = [(each.exponent, y(each.bounds[grade])) for each in found if grade in each.bounds]
        class_ = f"bound {grade} claimed" if grade == claimed else f"bound {grade}"
        marks.append(element("path", d=_steps(steps, x), class_=class_))
    for each in found:
        at = x(each.exponent + 0.5), y(each.error)
        if each.error > top:
            marks.append(text(at[0], at[1] + 7, "▲", "beyond", "middle"))
        else:
            marks.append(element("circle", cx=at[0], cy=at[1], r=2.8, class_="error"))
    return element(
        "svg",
        element("title", escape(label)),
        *marks,
        viewBox="0 0 284 186",
        role="img",
        class_="plot",
    )


def _steps(steps: Sequence[tuple[int, float]], x: Scale) -> str:
    """Return a path that is level in each decade and interrupted at missing decades."""
    parts, before = [], None
    for exponent, height in steps:
        move = "L" if before == exponent - 1 else "M"
        parts.append(f"{move}{x(exponent):.1f},{height:.1f}H{x(exponent + 1):.1f}")
        before = exponent
    return "".join(parts)


def _frame(x: Scale, y: Scale, exponents: tuple[int, int], top: float) -> Iterator[str]:
    """Yield the grid and the labels of the axes; of many decades, every second one has a label."""
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
    """Return a power of ten, as in ``10⁻²``."""
    if exponent == 0:
        return "1"
    if exponent == 1:
        return "10"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
