"""Each kind of change makes all of its mutants and no others; the suite kills known mutants."""

from __future__ import annotations

import ast

import pytest

from benchmarks import mutants
from benchmarks.mutants import (
    KILLED,
    Mutant,
    backend_of,
    everyday,
    fates_of,
    killed_soon,
    mutants_of,
    told_apart,
)

KERNEL = mutants.SOURCE.read_text("utf-8")
OF_KERNEL = mutants_of(KERNEL)

SOME = 150
"""Number of cases in a quick differential test."""


def changed(source: str) -> dict[str, str]:
    """Return the changed lines, by the ids of the mutants without the number of the line."""
    return {mutant.id.partition(":")[2]: mutant.after for mutant in mutants_of(source)}


def the_mutant(function: str, after: str) -> Mutant:
    """Return the mutant of the kernel that has this line in this function."""
    found = [m for m in OF_KERNEL if (m.function, m.after) == (function, after)]
    assert found, after
    return found[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "r = a - b",
            {
                "7:- becomes +": "r = a + b",
                "7:left side alone": "r = a",
                "7:right side alone": "r = b",
            },
        ),
        (
            "r = (a + b) * c",
            {
                "8:+ becomes -": "r = (a - b) * c",
                "8:left side alone": "r = (a) * c",
                "8:right side alone": "r = (b) * c",
                "13:* becomes /": "r = (a + b) / c",
                "13:* becomes +": "r = a + b + c",
                "13:left side alone": "r = a + b",
                "13:right side alone": "r = c",
            },
        ),
        ("r = -a", {"5:minus dropped": "r = a"}),
        ("r += a", {"3:+= becomes -=": "r -= a", "1:statement dropped": "pass"}),
        ("r = a < b", {"7:< becomes <=": "r = a <= b", "7:< becomes >=": "r = a >= b"}),
        ("r = a is None", {"7:is becomes is not": "r = a is not None"}),
        (
            "r = a and not b",
            {
                "7:and becomes or": "r = a or not b",
                "7:first operand dropped": "r = not b",
                "7:operand dropped": "r = a",
                "11:not dropped": "r = a and b",
            },
        ),
        ("r = 3", {"5:3 becomes 4": "r = 4", "5:3 becomes 2": "r = 2"}),
        ("r = [0]", {"6:0 becomes 1": "r = [1]", "6:0 becomes -1": "r = [-1]"}),
        ("r = True", {"5:True becomes False": "r = False"}),
        (
            "r = a if c else b",
            {
                "10:condition always True": "r = a if True else b",
                "10:condition always False": "r = a if False else b",
            },
        ),
        ("r = [a for a in b if c]", {"22:condition always True": "r = [a for a in b if True]"}),
        ("r.x = a", {"1:statement dropped": "pass"}),
        ("g()", {"1:statement dropped": "pass"}),
        ("r = h(a, b)", {"10:arguments swapped": "r = h(b, a)"}),
        ("r = h(a, a)", {}),
        ("r = a, b", {"8:elements swapped": "r = (b, a)"}),
        ("r = a[:, None]", {"10:elements swapped": "r = a[None, :]"}),
        ("r = h(a=b)", {"7:argument dropped": "r = h()"}),
        ("r = np.sqrt(a)", {"12:call dropped": "r = a"}),
        ("r = a.copy()", {"11:call dropped": "r = a"}),
        ("r = self.widened(a)", {"17:call dropped": "r = a"}),
        ("r = np.zeros(a)", {"8:other function": "r = np.ones(a)", "13:call dropped": "r = a"}),
        ("r = state.weight", {"11:other name": "r = state.bias"}),
        ("r = mean", {"5:other name": "r = var"}),
        ('"""a - b"""', {}),
        ("r: 3 = a", {}),
        ("import a", {}),
        ("assert a is not None", {}),
        ('raise E(f"{a + 1}", 2)', {"1:statement dropped": "pass"}),
        ("def f(a: 1 - 2) -> 3: pass", {}),
    ],
)
def test_each_kind_of_change_is_made_in_all_its_ways_and_no_other(
    line: str, expected: dict[str, str]
) -> None:
    assert changed(line) == expected


def test_a_mutant_reads_like_a_diff() -> None:
    first = mutants_of("def f(a):\n    return a + 1\n")[0]
    assert first.diff == "2:14:+ becomes - in f\n- return a + 1\n+ return a - 1"


def test_columns_are_those_of_an_editor() -> None:
    assert mutants_of('r = "Σ", 1 < a')[-1].id.startswith("1:12:")


def test_ids_are_unique_and_stable() -> None:
    ids = [mutant.id for mutant in OF_KERNEL]
    assert len(ids) == len(set(ids)) > 500
    assert mutants_of(KERNEL) == OF_KERNEL


def stripped(text: str) -> list[str]:
    """Return the lines of a text without their indentation."""
    return [line.strip() for line in text.splitlines()]


def test_a_mutant_of_the_kernel_differs_in_the_lines_it_shows_and_in_no_other() -> None:
    original = stripped(KERNEL)
    for mutant in OF_KERNEL:
        before, after = mutant.before.splitlines(), mutant.after.splitlines()
        assert before != after
        # The same lines can stand in several places; one of them must be the changed one.
        places = [i for i in range(len(original)) if original[i : i + len(before)] == before]
        candidates = [original[:i] + after + original[i + len(before) :] for i in places]
        assert stripped(mutant.source) in candidates, mutant


def test_a_mutant_of_the_kernel_is_another_program() -> None:
    original = ast.dump(ast.parse(KERNEL))
    assert all(ast.dump(ast.parse(mutant.source)) != original for mutant in OF_KERNEL[::20])


@pytest.mark.parametrize(
    ("function", "after"),
    [
        ("estimated_var", "return var"),
        ("check", "if x.ndim < 4:"),
        ("inverse_std", "s: Array = 1 / (var + var.dtype.type(self.config.eps))"),
        ("reset_parameters", "self.weight, self.bias = (fresh.bias, fresh.weight)"),
        ("rows", "return self.widened(x.transpose(0, 1, 2, 3).reshape(x.shape[1], -1))"),
        ("projected", "if True:"),
    ],
)
def test_known_mutants_are_killed(function: str, after: str) -> None:
    mutant = the_mutant(function, after)
    fate = killed_soon(backend_of(mutant.source), everyday(function), seed=0)
    assert fate is not None
    assert fate.outcome == KILLED


def test_the_kernel_as_it_stands_survives_and_cannot_be_told_from_itself() -> None:
    backend = backend_of(KERNEL)
    assert killed_soon(backend, everyday("forward")[::5], seed=0) is None
    assert told_apart(backend, 0, SOME) is None


def test_an_equivalent_mutant_is_not_told_apart() -> None:
    mutant = the_mutant("__init__", "self.store(self.built() if state is None else state)")
    assert told_apart(backend_of(mutant.source), 0, SOME) is None


def test_a_crash_and_an_endless_loop_are_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "LIMIT", 6.0)
    sources = {"crash": "import os\nos._exit(1)", "loop": "while True: pass"}
    found = fates_of(
        [Mutant(name, "forward", "", "", source) for name, source in sources.items()],
        seed=0,
        jobs=1,
    )
    assert {name: (fate.outcome, fate.by) for name, fate in found.items()} == {
        "crash": (KILLED, "crash"),
        "loop": (KILLED, "time"),
    }
