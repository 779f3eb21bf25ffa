"""Write the generated tables and the two plots of docs/numerics.md.

``python scripts/draw.py`` needs matplotlib (``pip install -e '.[docs]'``) and docs/soak.json.
``python benchmarks/soak.py --channels 1000000 --backend torch-cpu --write docs/soak.json`` writes
docs/soak.json. With the same version of matplotlib, the same input gives the same files, byte for
byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log2
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bn_spec.case.config import Config
from bn_spec.case.dtypes import DTYPES, Array, DType, Floats, Format
from bn_spec.case.steps import GRADIENTS
from bn_spec.oracle.bounds import Accuracy, Model, batch_moments
from bn_spec.oracle.reference import Extended
from bn_spec.oracle.reference import formulas as f
from bn_spec.specimens import SPECIMENS

HERE = Path(__file__).parents[1] / "docs"
PAGE = HERE / "numerics.md"

STYLE = {
    "svg.hashsalt": "bn-spec",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#a05195", "#404040"
"""Colours for every kind of colour vision (Okabe and Ito, with a darker purple)."""

STATISTICS = ("output", "running_mean", "running_var")
"""Observables of a forward in training mode."""

N = 256
"""Number of values per channel in the plot of errors against conditioning."""

NONE = 1e-12
"""Fraction drawn for no channel: on a logarithmic axis, far below the lower end."""

CHANNELS = 4096
"""Number of channels per point of the plot of errors against conditioning."""

RATIOS = tuple(10 ** (k / 4) for k in range(29))
"""mean / σ at each point of this plot: 1 to 1e7, four points per decade."""

KERNELS = {
    "two-pass-sequential": (BLUE, "o"),
    "welford": (ORANGE, "s"),
    "chan-merge": (GREEN, "^"),
    "textbook": (PURPLE, "D"),
}
"""Colour and marker of each specimen in the plot."""

BOUNDS = {"two-pass": BLUE, "welford": ORANGE, "textbook": PURPLE}
"""Colour of the bound of each grade in the plot."""


# Tables


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def power(value: float) -> str:
    """Return a power of two as text, with a superscript exponent."""
    return "2" + str(round(log2(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def formats_of(row: DType) -> list[str]:
    """Return a row of the table of dtypes: each format with its unit roundoff."""
    cells = (
        f"{part.name}, {power(part.u)}" for part in (row.data, row.parameters, row.accumulation)
    )
    return [
        f"`{row.name}`",
        *cells,
        f"{row.data.largest:.3g}",
        f"{row.data.smallest_subnormal:.2g}",
    ]


def limits_of(format: Format) -> list[str]:
    """Return a row of the table of formats."""
    sizes = (format.largest, format.smallest_normal, format.smallest_subnormal)
    return [format.name, power(format.u), *(f"{size:.3g}" for size in sizes)]


def dtype_tables() -> str:
    """Return the table of dtypes and the table of formats."""
    heads = (
        "dtype",
        "data, u",
        "parameters, u",
        "accumulation, u",
        "largest datum",
        "smallest subnormal datum",
    )
    dtypes = markdown(heads, map(formats_of, DTYPES.values()))
    known = {part.name: part for row in DTYPES.values() for part in (row.data, row.accumulation)}
    formats = markdown(
        ("format", "u", "largest", "smallest normal", "smallest subnormal"),
        map(limits_of, known.values()),
    )
    return f"{dtypes}\n\n{formats}"


@dataclass(frozen=True)
class Soak:
    """The measurements of benchmarks/soak.py."""

    facts: dict[str, Any]

    def worst(self, implementation: str, dtype: str, observable: str) -> float | None:
        """Return the worst err / bound, or None if nothing was judged."""
        for share in self.facts["shares"]:
            if (share["implementation"], share["dtype"], share["observable"]) == (
                implementation,
                dtype,
                observable,
            ):
                return float(share["worst"]) if share["channels"] else None
        return None

    def implementations(self) -> list[str]:
        """Return the names of all implementations, in the order of the file."""
        return list(dict.fromkeys(share["implementation"] for share in self.facts["shares"]))

    def largest(self, dtype: str, observable: str) -> float:
        """Return the largest err / bound over the specimens."""
        return max(
            float(share["worst"])
            for share in self.facts["shares"]
            if share["implementation"] in SPECIMENS
            and (share["dtype"], share["observable"]) == (dtype, observable)
        )

    def beyond(self, dtype: str, observable: str) -> Floats:
        """Return, per edge, the fraction of channels whose worst element has a larger share."""
        counts = np.array(self.facts["histograms"][dtype][observable], float)
        fractions: Floats = 1 - np.cumsum(counts)[:-1] / counts.sum()
        return fractions


def percent(share: float | None) -> str:
    """Return a share of a bound in percent, rounded down: 100 is a violation."""
    return "–" if share is None else str(floor(100 * share))


def by_implementation(soak: Soak, observables: Sequence[str]) -> str:
    """Return a table of the worst shares of each implementation in each dtype."""
    rows = []
    for name in soak.implementations():
        shares = ([percent(soak.worst(name, dtype, o)) for o in observables] for dtype in DTYPES)
        rows.append([name, *("" if set(cell) == {"–"} else " / ".join(cell) for cell in shares)])
    return markdown(("", *DTYPES), rows)


def measured_tables(soak: Soak) -> str:
    """Return the tables of shares: by implementation, and the largest over the specimens."""
    forward, backward = (by_implementation(soak, names) for names in (STATISTICS, GRADIENTS))
    observables = (*STATISTICS[:1], "output in eval mode", *STATISTICS[1:], *GRADIENTS)
    most = ([dtype, *(percent(soak.largest(dtype, o)) for o in observables)] for dtype in DTYPES)
    specimens = markdown(("", *observables), most)
    facts = soak.facts
    return (
        f"{facts['channels']:,} channels, seed {facts['seed']}:"
        f" {facts['flagged']} cases beyond a bound, {facts['known']} with a known failure."
        " Worst err/bound in percent,\nrounded down: output / running_mean / running_var,"
        f" where the output is that normalised by batch statistics.\n\n{forward}\n\n"
        f"The gradients, in training and in eval mode: input / weight / bias.\n\n{backward}\n\n"
        f"The largest over the specimens, in percent:\n\n{specimens}"
    )


def put(name: str, body: str) -> None:
    """Replace the text between the markers called ``name`` in the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{PAGE.name} must have {begin} and {end} exactly once")
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n\n{body}\n\n{end}", text), encoding="utf-8")


# Plots


@dataclass(frozen=True)
class Channels:
    """Channels of float32 values, shape (C, n), with their exact statistics, shape (C, 1)."""

    rows: Array
    mean: Floats
    var: Extended

    @classmethod
    def drawn(cls, ratio: float) -> Channels:
        """Draw Gaussian channels with mean / σ within half a step of the plot around ``ratio``.

        With a single ratio, the result would depend on the low bits of the mean.
        """
        rng = np.random.default_rng(round(1000 * log2(ratio)))
        means = ratio * 10 ** rng.uniform(-1 / 8, 1 / 8, size=(CHANNELS, 1))
        rows = (rng.normal(size=(CHANNELS, N)) + means).astype(np.float32)
        exact = Extended(rows)
        mean = f.mean(exact)
        return cls(rows, mean.hi, f.biased_variance(exact, mean))

    def error(self, kernel: str) -> float:
        """Return the largest relative error of a specimen's variance."""
        _, var = SPECIMENS[kernel].kernel(Config(CHANNELS), None).moments(self.rows)
        error = np.abs((var[:, np.newaxis] - self.var.hi) - self.var.lo) / self.var.hi
        return float(error.max())

    def bound(self, grade: str) -> float:
        """Return the largest bound of the relative error of the variance, for sums in any order."""
        model = Model(DTYPES["float32"], N, Accuracy(grade=grade))
        mean_abs = np.abs(self.rows.astype(np.float64)).mean(axis=1, keepdims=True)
        return float(
            (batch_moments(model, self.mean, self.var.hi, mean_abs).dvar / self.var.hi).max()
        )


def error_against_conditioning() -> Figure:
    """Plot the relative error of the variance against mean / σ, with the bounds of the grades."""
    samples = [Channels.drawn(ratio) for ratio in RATIOS]
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()
    for name, (colour, marker) in KERNELS.items():
        errors = [channels.error(name) for channels in samples]
        axes.loglog(
            RATIOS, errors, color=colour, marker=marker, markersize=4.5, linewidth=1.2, label=name
        )
    for grade, colour in BOUNDS.items():
        bounds = [channels.bound(grade) for channels in samples]
        axes.loglog(
            RATIOS, bounds, color=colour, linewidth=1.4, linestyle="--", label=f"bound of {grade}"
        )
    axes.set(
        xlabel="mean / σ",
        ylabel="relative error of the variance",
        xlim=(RATIOS[0], RATIOS[-1]),
        ylim=(1e-8, 1e8),
    )
    axes.set_title(
        f"float32, {N} values per channel, the worst of {CHANNELS} Gaussian channels", size=11
    )
    axes.legend(loc="upper left", frameon=False)
    return figure


def share_of_the_bound(soak: Soak) -> Figure:
    """Plot the fraction of channels that use more than a share of their bound, by dtype."""
    figure = Figure(figsize=(9.5, 5.8), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    edges = soak.facts["edges"]
    for axes, dtype in zip(panels.flat, DTYPES, strict=True):
        for name, colour in zip(STATISTICS, (BLUE, ORANGE, GREEN), strict=True):
            fractions = soak.beyond(dtype, name)
            axes.loglog(
                edges, np.maximum(fractions, NONE), color=colour, drawstyle="steps-post", label=name
            )
        axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
        axes.set_title(dtype, size=11)
        axes.set(xlim=(1e-3, 1.5), ylim=(2e-6, 1.2))
    panels[0, 0].legend(loc="lower left", frameon=False)
    figure.supxlabel("t, a share of the bound (dashed: the bound)", size=11)
    figure.supylabel("fraction of channels with err/bound > t", size=11)
    return figure


def save(figure: Figure, name: str) -> None:
    """Write a plot as SVG, without its date and the version of matplotlib."""
    path = HERE / name
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    # matplotlib leaves spaces at the ends of lines.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Write the tables and the plots."""
    soak = Soak(json.loads((HERE / "soak.json").read_text(encoding="utf-8")))
    put("dtypes", dtype_tables())
    put("measured", measured_tables(soak))
    with mpl.rc_context(STYLE):
        save(error_against_conditioning(), "error-against-conditioning.svg")
        save(share_of_the_bound(soak), "share-of-the-bound.svg")


if __name__ == "__main__":
    main()
