"""Runs for the tests of reports: small ones, a large one, and one with malicious text."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import Any

from bn_spec import Capabilities, Dialect
from bn_spec.case.dtypes import DTYPES
from bn_spec.report.records import (
    CRASHED,
    FAIL,
    KNOWN,
    NOT_CLAIMED,
    PASS,
    VACUOUS,
    Record,
    exit_code,
)
from bn_spec.report.run_file import Judged, RunFile
from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.chapters import load_suite

BY = {"bn-spec": "0.1.0", "specification": "0.6", "profile": "ci", "examples": 100, "seed": 0}
ENVIRONMENT = {
    "python": "3.11.7",
    "machine": "Linux x86_64",
    "cores": 2,
    "packages": {"numpy": "2.4.6"},
}
TIMING = {"started": "2026-11-26T09:00:00+00:00", "seconds": 1.5, "workers": 2}

HARM = (
    "</pre><script>alert(1)</script> ``` | \x1b[31m @you [a](javascript:alert) &lt;"
    " <img src=x onerror=alert(2)>"
)
"""Text that tries to break out of a page, a Markdown file and a terminal."""


def judged(name: str, description: str = "framework 1.0", **measured: str) -> Judged:
    """Return the entry of a judged backend."""
    claims = asdict(Capabilities(gradients=True, dialect=Dialect(running_var="biased")))
    claims["dialect"]["eps_range"] = [0.0, "inf"]
    return Judged(
        name,
        description,
        claims,
        ("running_var is updated with the biased variance",),
        measured,
        f"{name}.py:it",
    )


def record(
    requirement: str, status: str = PASS, backend: str = "one", dtype: str = "float32", **more: Any
) -> Record:
    """Return the record of a cell."""
    return Record(requirement, backend, dtype, status, **{"claimed_grade": "welford", **more})


def run(*records: Record, by: dict[str, Any] | None = None, **more: Any) -> RunFile:
    """Return the file of a run with these records."""
    names = dict.fromkeys(each.backend for each in records)
    parts: dict[str, Any] = {
        "backends": tuple(map(judged, names)),
        "unavailable": {},
        "faults": (),
        "incomplete": (),
    }
    parts |= more
    code = exit_code(records, parts["faults"], parts["incomplete"])
    return RunFile(
        BY | (by or {}), ENVIRONMENT, records=records, exit_code=code, timing=TIMING, **parts
    )


SEVERAL = (
    record("CFG-01", examples=3, reached={"C = 1": 2, "C = 2": 1}),
    record(
        "RUN-03",
        FAIL,
        shares={"running_var": 4e5},
        text="RUN-03 is violated\n  got  0.25",
        examples=7,
    ),
    record("RUN-03", FAIL, dtype="float64", shares={"running_var": inf}, text="RUN-03 in float64"),
    record("GRD-01", KNOWN, text="two steps are rounded", shares={"grad_input": 0.5}),
    record("EVL-01", VACUOUS, text="EVL-01: 15 examples, nothing judged"),
    record("ERR-01", CRASHED, text="ValueError: no"),
    record("NUM-01", shares={"output": 0.996}, worst_case="Case(Config(1))", grade="textbook"),
    record("TRN-01", backend="other", shares={"output": 0.25}, reached={"C = 1": 4}),
    record("GRD-01", NOT_CLAIMED, backend="other", text="other does not claim gradients"),
)
"""A record of each status but unexpected pass, of two backends."""


def hostile() -> RunFile:
    """Return a run in which all text from the backend is malicious."""
    records = (
        record(
            "RUN-03",
            FAIL,
            HARM,
            text=HARM,
            shares={HARM: 2.0},
            observable=HARM,
            worst_case=HARM,
            cases=(HARM,),
        ),
        record("GRD-01", KNOWN, HARM, text=f"{HARM}\n{HARM}"),
        record(
            "NUM-01",
            backend=HARM,
            dtype=HARM,
            conditioning={"mean/σ 1e3": {"two-pass": 0.5, HARM: 1.0}},
        ),
    )
    one = judged(HARM, HARM, float32="two-pass")
    backend = Judged(HARM, HARM, {**one.claims, "layouts": [HARM]}, (HARM,), one.measured, HARM)
    return run(
        *records, backends=(backend,), unavailable={HARM: HARM}, faults=(HARM,), incomplete=(HARM,)
    )


def large() -> RunFile:
    """Return a run as large as a real one: three backends, all requirements, all dtypes."""
    load_suite()
    case = "Case(\n" + "    config=Config(2, momentum=1.0),\n" * 18 + ")"
    ratios = {
        f"mean/σ 1e{k}": {"two-pass": 0.1, "welford": 0.1 / 4**k, "textbook": 0.1 / 90**k}
        for k in range(5)
    }
    more = {
        "shares": {"output": 0.3, "running_var": 0.01},
        "worst_case": case,
        "examples": 100,
        "reached": {"C = 1": 9},
    }
    records = []
    for backend in ("one", "another", "a-third-one-with-a-longer-name"):
        for dtype in DTYPES:
            for name in REQUIREMENTS:
                conditioning = ratios if name == "NUM-01" else {}
                records.append(
                    record(name, PASS, backend, dtype, **more, conditioning=conditioning)
                )
    return run(*records)
