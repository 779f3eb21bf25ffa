"""A run as one HTML page that works alone: no network, no fonts, no script but its own."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil, log10
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bn_spec.report import svg
from bn_spec.report.merge import Merged
from bn_spec.report.records import KNOWN, NOT_CLAIMED, PASS, Record
from bn_spec.report.text import cut, in_a_line
from bn_spec.report.view import BackendView, View, commands, counted, share
from bn_spec.specification.requirement import CHAPTERS

PAGE = Path(__file__).with_name("page")
"""Folder of the template, the style sheet and the script."""

MARKS = {PASS: "✓", KNOWN: "≈", NOT_CLAIMED: "–"}
"""Marks of statuses in the tables; every other status is a failure."""

FAILED = "✗"
"""Mark of a failure."""

TICKS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of err / bound that label the axis of a distribution."""

HIGHEST = 12
"""Largest exponent of ten on the axis of errors; larger errors are drawn at its end."""


def html(merged: Merged) -> str:
    """Return the page."""
    style, script = ((PAGE / name).read_text("utf-8") for name in ("report.css", "report.js"))
    view = View(merged.run)
    template = _environment().get_template("report.html")
    return template.render(
        view=view,
        merged=merged,
        chapters=CHAPTERS,
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        commands=list(commands(merged.sources)),
        distributions=[(backend, list(_distributions(backend))) for backend in view.backends],
        ticks=[(f"{tick:g}", svg.position(tick)) for tick in TICKS],
        plots=_plots(view.backends),
    )


def _environment() -> Environment:
    """Return Jinja's environment, which escapes all text and refuses undefined names."""
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": in_a_line, "shown": cut, "share": share, "moment": _moment}
    environment.filters |= {"width": _width, "bar_length": _length}
    environment.globals |= {"counted": counted, "mark": _mark, "claims": _claims}
    return environment


def _moment(started: str) -> str:
    """Return a point in time in a readable form, or the text itself if it is not a time."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return in_a_line(started)


def _mark(record: Record) -> str:
    return MARKS.get(record.status, FAILED)


def _width(worst: float | None) -> str:
    """Return err / bound in percent, at most 100."""
    return f"{100 * min(max(worst or 0.0, 0.0), 1.0):.0f}%"


def _length(cases: int, most: int) -> str:
    """Return the length of a bar for a number of cases in percent, on a logarithmic scale."""
    return f"{100 * log10(1 + cases) / log10(1 + max(most, 1)):.0f}%"


def _claims(backend: BackendView) -> list[tuple[str, str]]:
    """Return the claims of a backend as text."""
    # The page shows the dialect as sentences, elsewhere.
    declared = backend.judged.claims.items()
    return [
        (name.replace("_", " "), _claim(value)) for name, value in declared if name != "dialect"
    ]


def _claim(value: Any) -> str:
    """Return the value of a claim as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


@dataclass(frozen=True)
class Distribution:
    """Distribution of err / bound of a backend in a dtype."""

    dtype: str
    values: int
    worst: float
    picture: Markup


def _distributions(backend: BackendView) -> Iterator[Distribution]:
    """Yield the distribution of each dtype in which anything was measured."""
    for dtype in backend.dtypes:
        own = [record for record in backend.claimed if record.dtype == dtype]
        values = [value for record in own for value in record.shares.values()]
        if values:
            worst = max(values)
            measured = counted(len(values), "value")
            label = f"{dtype}: {measured} of err/bound; the worst is {share(worst)}"
            yield Distribution(dtype, len(values), worst, Markup(svg.distribution(values, label)))


@dataclass(frozen=True)
class Plot:
    """Errors of a backend against conditioning in a dtype, with its claimed and measured grade."""

    dtype: str
    claimed: str
    measured: str
    picture: Markup


Measurements: TypeAlias = Sequence[tuple[Record, list[svg.Decade]]]
"""Records of a backend that measure errors by conditioning, with the decades to draw."""


def _plots(backends: Sequence[BackendView]) -> list[tuple[BackendView, list[Plot]]]:
    """Return the plots of each backend that has any, all on the same axes."""
    found = {backend.backend: list(_measurements(backend)) for backend in backends}
    if not any(found.values()):
        return []
    exponents, top = _axes(found)
    plots = []
    for backend in backends:
        own = [_plot(record, drawn, exponents, top) for record, drawn in found[backend.backend]]
        if own:
            plots.append((backend, own))
    return plots


def _axes(found: Mapping[str, Measurements]) -> tuple[tuple[int, int], float]:
    """Return the first and the last decade of all plots, and the largest error on their axis."""
    decades = [decade for own in found.values() for _, drawn in own for decade in drawn]
    exponents = [decade.exponent for decade in decades]
    largest = max(max(decade.error, *decade.bounds.values()) for decade in decades)
    # The axis is labelled at every second power of ten, so it ends at an even exponent.
    even = ceil(log10(min(largest, 10.0**HIGHEST)) / 2) * 2
    return (min(exponents), max(exponents)), 10.0 ** min(max(even, 2), HIGHEST)


def _measurements(backend: BackendView) -> Iterator[tuple[Record, list[svg.Decade]]]:
    for record in backend.records:
        if decades := svg.decades(record.conditioning):
            yield record, decades


def _plot(
    record: Record, drawn: Sequence[svg.Decade], exponents: tuple[int, int], top: float
) -> Plot:
    label = in_a_line(f"Worst error of {record.backend} in {record.dtype} by decades of |mean| / σ")
    picture = svg.conditioning(drawn, record.claimed_grade, exponents, top, label)
    return Plot(record.dtype, record.claimed_grade, record.grade, Markup(picture))
