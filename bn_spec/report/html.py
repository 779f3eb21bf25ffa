"""A run as one page that needs nothing beside itself: no network, no fonts, no script of others."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil, log10
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bn_spec.report import svg
from bn_spec.report.merge import Merged
from bn_spec.report.records import KNOWN, NOT_CLAIMED, PASS, Record
from bn_spec.report.text import cut, in_a_line
from bn_spec.report.view import Backend, View, commands, counted, share

PAGE = Path(__file__).with_name("page")

MARKS = {PASS: "✓", KNOWN: "≈", NOT_CLAIMED: "–"}
"""What stands for a status where there is no room for a word; all others are failures."""

FAILED = "✗"

TICKS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

HIGHEST = 12
"""The largest exponent of ten of an error that is drawn at its place."""


def html(merged: Merged) -> str:
    """Return the page."""
    style, script = ((PAGE / name).read_text("utf-8") for name in ("report.css", "report.js"))
    view = View(merged.run)
    return (
        _environment()
        .get_template("report.html")
        .render(
            view=view,
            merged=merged,
            style=Markup(style),
            script=Markup(script),
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
            commands=list(commands(merged.sources)),
            distributions=[(backend, list(_distributions(backend))) for backend in view.backends],
            ticks=[(f"{tick:g}", svg.position(tick)) for tick in TICKS],
            plots=_plots(view.backends),
        )
    )


def _environment() -> Environment:
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
    """Return a point in time as people read it, if it is one."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return in_a_line(started)


def _mark(record: Record) -> str:
    return MARKS.get(record.status, FAILED)


def _width(worst: float | None) -> str:
    """Return how much of the bound an error is, in percent of it."""
    return f"{100 * min(max(worst or 0.0, 0.0), 1.0):.0f}%"


def _length(cases: int, most: int) -> str:
    """Return the length of a bar for a number of cases, on a logarithmic scale."""
    return f"{100 * log10(1 + cases) / log10(1 + max(most, 1)):.0f}%"


def _claims(backend: Backend) -> list[tuple[str, str]]:
    """Return the claims of a backend as text, its dialect apart, which is told in sentences."""
    given = backend.judged.claims.items()
    return [(name.replace("_", " "), _told(value)) for name, value in given if name != "dialect"]


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Distribution:
    """How err / bound of a backend is distributed in a dtype."""

    dtype: str
    values: int
    worst: float
    picture: Markup


def _distributions(backend: Backend) -> Iterator[Distribution]:
    for dtype in backend.dtypes:
        values = [share for r in backend.claimed if r.dtype == dtype for share in r.shares.values()]
        if values:
            worst = max(values)
            label = (
                f"{dtype}: {counted(len(values), 'value')} of err/bound, the worst {share(worst)}"
            )
            yield Distribution(dtype, len(values), worst, Markup(svg.distribution(values, label)))


@dataclass(frozen=True)
class Plot:
    """Errors against conditioning in a dtype, with the claimed and the measured grade."""

    dtype: str
    claimed: str
    measured: str
    picture: Markup


def _plots(backends: Sequence[Backend]) -> list[tuple[Backend, list[Plot]]]:
    """Return plots by dtype of the backends whose conditioning was looked at, all on the same axes."""
    found = {backend.backend: list(_measurements(backend)) for backend in backends}
    everything = [decade for own in found.values() for _, drawn in own for decade in drawn]
    if not everything:
        return []
    exponents = min(d.exponent for d in everything), max(d.exponent for d in everything)
    largest = max(max(d.error, *d.bounds.values()) for d in everything)
    top = 10.0 ** min(max(ceil(log10(min(largest, 10.0**HIGHEST)) / 2) * 2, 2), HIGHEST)
    drawn = (
        (each, [_plot(*one, exponents, top) for one in found[each.backend]]) for each in backends
    )
    return [(backend, plots) for backend, plots in drawn if plots]


def _measurements(backend: Backend) -> Iterator[tuple[Record, list[svg.Decade]]]:
    for record in backend.records:
        if decades := svg.decades(record.conditioning):
            yield record, decades


def _plot(
    record: Record, drawn: Sequence[svg.Decade], exponents: tuple[int, int], top: float
) -> Plot:
    label = in_a_line(f"Worst error of {record.backend} in {record.dtype} by decades of |mean| / σ")
    picture = svg.conditioning(drawn, record.claimed_grade, exponents, top, label)
    return Plot(record.dtype, record.claimed_grade, record.grade, Markup(picture))
