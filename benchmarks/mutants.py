"""Measures which share of small mistakes in a sound implementation the suite kills.

``python benchmarks/mutants.py --jobs 2`` makes mutants of :mod:`bn_spec.specimens.kernel`. Each
mutant changes the source in one place: an operator, a constant, a comparison, a statement, an axis
or a pair of arguments. :func:`mutants_of` lists all changes.

Each mutant is judged as ``bn-spec run --profile ci`` judges a backend: by the same properties, with
the same numbers of examples, in every dtype. It ends in one of these ways:

- A violation *kills* it.
- It is *equivalent* if a differential test of thousands of drawn cases finds no difference from the
  original.
- It is *equivalent up to rounding* if its numbers differ by no more than the bounds of both allow.
- Otherwise it *survives*. A survivor is a gap of the suite, unless :data:`EXPLAINED` says why not.

Equivalent and explained mutants do not count. The exit code is 1 if less than 99 % of the others
are killed. It is 2 if the kernel itself is not sound, or if an explanation has no survivor.

The result depends on the seed alone, not on --jobs.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from math import ceil
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median
from traceback import format_exc
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import seed as seeded

from bn_spec.backend.contract import Backend
from bn_spec.case.arrays import same_bits, take_apart
from bn_spec.case.config import State
from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.script import Case
from bn_spec.case.steps import Backward, DoubleBackward, Forward, Restore, Save, config_after
from bn_spec.oracle.bounded import Bounded
from bn_spec.oracle.expectation import Context, Past, expect
from bn_spec.play.observation import Answer, Observation, Raised
from bn_spec.play.player import play
from bn_spec.specimens import SPECIMENS, Specimen, kernel
from bn_spec.strategies import (
    ABSENT,
    PARAMETER_STYLES,
    RUNNING_STYLES,
    WORDS,
    cases,
    histories,
    shapes,
)
from bn_spec.strategies.histories import USUAL
from bn_spec.suite.cell import Cell, Violation
from bn_spec.suite.chapters import load_suite
from bn_spec.suite.profiles import PROFILES
from bn_spec.suite.property import PROPERTIES, Property
from bn_spec.suite.search import OTHER_DTYPES, Search

load_suite()

BAR = 0.99
"""Share of the mutants that the suite must kill; equivalent and explained ones do not count."""

LIMIT = 900.0
"""Seconds after which a mutant counts as killed by time. A survivor takes one or two minutes."""

FEW = 10
"""Number of examples of each property in the first pass, which finds the fast kills."""

CASES = 3000
"""Number of cases in the differential test."""

SOURCE = Path(kernel.__file__)
"""File with the source of the kernel."""

CLAIMS = SPECIMENS["two-pass-sequential"].capabilities
"""Claims of the kernel: this specimen is the kernel without a change."""

EXPLAINED: Mapping[tuple[str, str], str] = {
    ("forward", "return self.normalise(x, mean, s).astype(x.dtype)"): (
        "the numbers are the same, because the mean and so the difference have the wider dtype;"
        " the output of an expanded input has other strides, but the requirements about strides"
        " are limited to inputs in NCHW or NHWC order"
    ),
}
"""Reasons why a survivor is no gap, by its function and its changed line."""


# Mutating


@dataclass(frozen=True)
class Mutant:
    """A source in which one node is changed.

    Attributes:
        id: Line and column of the change, as an editor counts them, and its kind.
        function: Name of the function or class around the change.
        before: The lines that differ, as they were, without their indentation.
        after: The same lines after the change.
        source: The whole changed source.

    """

    id: str
    function: str
    before: str
    after: str
    source: str = field(repr=False)

    @property
    def diff(self) -> str:
        """The change, in the form of a diff."""
        lines = [f"- {line}" for line in self.before.splitlines()] + [
            f"+ {line}" for line in self.after.splitlines()
        ]
        return "\n".join([f"{self.id} in {self.function}", *lines])


class Change(NamedTuple):
    """A change of one node.

    ``node`` is replaced by ``by``. ``kind`` says in words how they differ. ``offset`` is the place
    in the source, in bytes, that distinguishes the change from others of its kind.
    """

    kind: str
    offset: int
    node: ast.AST
    by: ast.AST


class Text:
    """A source as bytes: the parser of Python counts columns in bytes."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self.starts: list[int] = [0]
        for line in self.bytes.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def start(self, node: Any) -> int:
        """Return the offset of the first byte of a node."""
        return self._at(node.lineno, node.col_offset)

    def end(self, node: Any) -> int:
        """Return the offset behind the last byte of a node."""
        return self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def after(self, node: Any) -> int:
        """Return the offset of the next token after a node, such as an operator."""
        offset = self.end(node)
        while self.bytes[offset : offset + 1] in (b" ", b"\n", b")", b","):
            offset += 1
        return offset

    def position(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset, both from 1."""
        line = sum(start <= offset for start in self.starts)
        begin = self.starts[line - 1]
        return line, len(self.bytes[begin:offset].decode()) + 1

    def lines_of(self, node: ast.AST) -> tuple[int, int]:
        """Return the offsets of the start of a node's first line and the end of its last line."""
        if isinstance(node, ast.Module):
            return 0, len(self.bytes)
        begin = self.bytes.rfind(b"\n", 0, self.start(node)) + 1
        end = self.bytes.find(b"\n", self.end(node))
        return begin, len(self.bytes) if end < 0 else end


_SIGNS: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.BitOr: "|",
    ast.BitAnd: "&",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.And: "and",
    ast.Or: "or",
}

OPERATORS: Mapping[type[ast.AST], tuple[type[Any], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
"""Operators that replace an operator."""

PAIRS = (("weight", "bias"), ("running_mean", "running_var"), ("mean", "var"), ("dweight", "dbias"))
"""Names that replace each other."""

OTHER_NAME = {one: other for a, b in PAIRS for one, other in ((a, b), (b, a))}

FUNCTIONS = {"zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like"}
"""Functions of NumPy, with the functions that replace them."""

WITHOUT = ("annotation", "returns", "type_comment", "ctx")
"""Fields of nodes that are not changed."""


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a source, in the order of their places.

    Annotations, docstrings, messages of exceptions, imports and assertions are not changed. The
    assertions exist for the type checker.
    """
    tree, text = ast.parse(source), Text(source)
    found = [
        _mutant(text, change, around)
        for node, around in _nodes(tree, tree)
        for change in _changes(node, text)
    ]
    return sorted(found, key=lambda m: (*map(int, m.id.split(":")[:2]), m.id))


Around: TypeAlias = ast.Module | ast.FunctionDef | ast.ClassDef
"""The innermost function, class or module around a node."""


def _nodes(node: ast.AST, around: Around) -> Iterator[tuple[ast.AST, Around]]:
    """Yield the nodes that may be changed, each with the function, class or module around it."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    yield node, around
    if isinstance(node, ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        inner = (
            node if isinstance(node, ast.FunctionDef | ast.ClassDef) and name == "body" else around
        )
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in WITHOUT:
                yield from _nodes(child, inner)


def _mutant(text: Text, change: Change, around: Around) -> Mutant:
    """Return the mutant of a change, with parentheses around the new node if it needs them.

    Raises:
        ValueError: The new node cannot be written in the place of the old one.

    """
    wanted = ast.dump(_Swap(change.node, change.by).visit(around))
    _Swap(change.by, change.node).visit(around)
    first, last = text.lines_of(around)
    begin, end = text.start(change.node), text.end(change.node)
    words = ast.unparse(change.by)
    # A tuple in square brackets, as in [:, None], must lose the parentheses of unparse.
    for by in (words, f"({words})", words[1:-1]):
        changed = text.bytes[:begin] + by.encode() + text.bytes[end:]
        grown = len(changed) - len(text.bytes)
        try:
            if _dump(changed[first : last + grown], around) == wanted:
                break
        except SyntaxError:
            continue
    else:
        raise ValueError(f"{words!r} cannot stand at {text.position(begin)}")
    first, last = text.lines_of(change.node)
    before = _without_indentation(text.bytes[first:last])
    after = _without_indentation(changed[first : last + grown])
    line, column = text.position(change.offset)
    function = getattr(around, "name", "")
    return Mutant(f"{line}:{column}:{change.kind}", function, before, after, changed.decode())


def _without_indentation(source: bytes) -> str:
    return "\n".join(line.strip() for line in source.decode().splitlines())


def _dump(source: bytes, like: Around) -> str:
    """Return the syntax tree of a module, or of a function or class in one, as text."""
    if isinstance(like, ast.Module):
        return ast.dump(ast.parse(source))
    # A method is parsed below an "if": without its indentation, its docstring would be another.
    block = ast.parse(b"if True:\n" + source if source[:1].isspace() else source).body[0]
    return ast.dump(block.body[0] if isinstance(block, ast.If) else block)


class _Swap(ast.NodeTransformer):
    """Replaces one node by another."""

    def __init__(self, node: ast.AST, by: ast.AST) -> None:
        self.node, self.by = node, by

    def visit(self, node: ast.AST) -> Any:
        return self.by if node is self.node else super().generic_visit(node)


def _changes(node: ast.AST, text: Text) -> Iterator[Change]:
    """Yield all changes of a node itself, not those of the nodes inside it."""
    for kind, change in _CHANGES.items():
        if isinstance(node, kind):
            yield from change(node, text)


def _of_binary(node: ast.BinOp, text: Text) -> Iterator[Change]:
    at = text.after(node.left)
    for other in OPERATORS.get(type(node.op), ()):
        changed = ast.BinOp(node.left, other(), node.right)
        yield Change(f"{_SIGNS[type(node.op)]} becomes {_SIGNS[other]}", at, node, changed)
    yield Change("left side alone", at, node, node.left)
    yield Change("right side alone", at, node, node.right)


def _of_augmented(node: ast.AugAssign, text: Text) -> Iterator[Change]:
    for other in OPERATORS.get(type(node.op), ()):
        changed = ast.AugAssign(node.target, other(), node.value)
        yield Change(
            f"{_SIGNS[type(node.op)]}= becomes {_SIGNS[other]}=",
            text.after(node.target),
            node,
            changed,
        )
    yield Change("statement dropped", text.start(node), node, ast.Pass())


def _of_unary(node: ast.UnaryOp, text: Text) -> Iterator[Change]:
    kind = {ast.USub: "minus dropped", ast.Not: "not dropped"}.get(type(node.op))
    if kind:
        yield Change(kind, text.start(node), node, node.operand)


def _of_boolean(node: ast.BoolOp, text: Text) -> Iterator[Change]:
    places = [text.after(value) for value in node.values[:-1]]
    (other,) = OPERATORS[type(node.op)]
    kind = f"{_SIGNS[type(node.op)]} becomes {_SIGNS[other]}"
    yield Change(kind, places[0], node, ast.BoolOp(other(), node.values))
    for i in range(len(node.values)):
        rest = node.values[:i] + node.values[i + 1 :]
        left = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        yield Change(
            "operand dropped" if i else "first operand dropped", places[max(i - 1, 0)], node, left
        )


def _of_comparison(node: ast.Compare, text: Text) -> Iterator[Change]:
    if len(node.ops) > 1:
        return
    for other in OPERATORS[type(node.ops[0])]:
        kind = f"{_SIGNS[type(node.ops[0])]} becomes {_SIGNS[other]}"
        yield Change(
            kind, text.after(node.left), node, ast.Compare(node.left, [other()], node.comparators)
        )


def _of_constant(node: ast.Constant, text: Text) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield Change(
            f"{value} becomes {not value}", text.start(node), node, ast.Constant(not value)
        )
    elif isinstance(value, int | float):
        for other in (value + 1, value - 1):
            by: ast.expr = ast.Constant(abs(other))
            if other < 0:
                by = ast.UnaryOp(ast.USub(), by)
            yield Change(f"{value} becomes {other}", text.start(node), node, by)


def _of_condition(node: ast.If | ast.IfExp, text: Text) -> Iterator[Change]:
    for value in (True, False):
        kind = f"condition always {value}"
        yield Change(kind, text.start(node.test), node.test, ast.Constant(value))


def _of_comprehension(node: ast.comprehension, text: Text) -> Iterator[Change]:
    for test in node.ifs:
        yield Change("condition always True", text.start(test), test, ast.Constant(True))


def _of_statement(node: ast.stmt, text: Text) -> Iterator[Change]:
    targets: list[ast.expr] = []
    for target in node.targets if isinstance(node, ast.Assign) else []:
        targets += target.elts if isinstance(target, ast.Tuple) else [target]
    if targets and all(isinstance(target, ast.Name) for target in targets):
        return  # the statements that follow would raise a NameError
    yield Change("statement dropped", text.start(node), node, ast.Pass())


def _of_name(node: ast.Name, text: Text) -> Iterator[Change]:
    if isinstance(node.ctx, ast.Load) and node.id in OTHER_NAME:
        by = ast.Name(OTHER_NAME[node.id], node.ctx)
        yield Change("other name", text.start(node), node, by)


def _of_attribute(node: ast.Attribute, text: Text) -> Iterator[Change]:
    of_numpy = isinstance(node.value, ast.Name) and node.value.id == "np"
    others = FUNCTIONS if of_numpy else OTHER_NAME
    if isinstance(node.ctx, ast.Load) and node.attr in others:
        kind = "other function" if of_numpy else "other name"
        by = ast.Attribute(node.value, others[node.attr], node.ctx)
        yield Change(kind, text.end(node) - len(node.attr), node, by)


def _of_elements(node: ast.Tuple, text: Text) -> Iterator[Change]:
    if isinstance(node.ctx, ast.Load):
        for swapped, second in _swapped(node.elts):
            yield Change("elements swapped", text.start(second), node, ast.Tuple(swapped, node.ctx))


def _swapped(elements: list[ast.expr]) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    """Yield the elements with two different neighbours swapped, and the second neighbour."""
    for i, (first, second) in enumerate(pairwise(elements)):
        alike = ast.dump(first) == ast.dump(second)
        if not alike and not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            yield [*elements[:i], second, first, *elements[i + 2 :]], second


def _of_call(node: ast.Call, text: Text) -> Iterator[Change]:
    for swapped, second in _swapped(node.args):
        yield Change(
            "arguments swapped",
            text.start(second),
            node,
            ast.Call(node.func, swapped, node.keywords),
        )
    for keyword in node.keywords:
        if keyword.arg is not None:
            rest = [other for other in node.keywords if other is not keyword]
            yield Change(
                "argument dropped", text.start(keyword), node, ast.Call(node.func, node.args, rest)
            )
    instead = _instead(node)
    if instead is not None:
        yield Change("call dropped", text.end(node.func), node, instead)


def _instead(node: ast.Call) -> ast.expr | None:
    """Return the node that replaces a call: the array whose method it is, or its argument."""
    root: ast.expr = node.func
    while isinstance(root, ast.Attribute):
        root = root.value
    receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(root, ast.Name) and root.id == "np":
        return node.args[0] if node.args else None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if receiver is not None and receiver is not root and name == "type":
        return node.args[0]  # dtype.type(a) converts a
    if receiver is None or (isinstance(receiver, ast.Name) and receiver.id == "self"):
        alone = (
            len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)
        )
        return node.args[0] if alone else None
    return receiver


_CHANGES: dict[Any, Callable[[Any, Text], Iterator[Change]]] = {
    ast.BinOp: _of_binary,
    ast.AugAssign: _of_augmented,
    ast.UnaryOp: _of_unary,
    ast.BoolOp: _of_boolean,
    ast.Compare: _of_comparison,
    ast.Constant: _of_constant,
    ast.If | ast.IfExp: _of_condition,
    ast.comprehension: _of_comprehension,
    ast.Expr | ast.Assign | ast.Raise | ast.For: _of_statement,
    ast.Name: _of_name,
    ast.Attribute: _of_attribute,
    ast.Tuple: _of_elements,
    ast.Call: _of_call,
}


def backend_of(source: str) -> Specimen:
    """Return the kernel of a source as a backend; raise any exception of the source itself."""
    name = f"{kernel.__package__}.mutant"
    module = ModuleType(name)
    module.__package__ = kernel.__package__
    sys.modules[name] = module  # dataclasses look up the names in their annotations there
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return Specimen("mutant", "The kernel with a mistake.", module.Kernel, CLAIMS)


# Judging, as the suite does


class Fate(NamedTuple):
    """How a mutant ends.

    ``outcome`` is one of :data:`KILLED`, :data:`EQUIVALENT`, :data:`ROUNDING` and :data:`SURVIVED`.
    For a killed mutant, ``by`` is the requirement that killed it, in ``dtype`` and after
    ``examples``. For a survivor, ``by`` is its first difference from the original. ``seconds`` is
    the time that judging took.
    """

    outcome: str
    by: str = ""
    dtype: str = ""
    examples: int = 0
    seconds: float = 0.0


KILLED, EQUIVALENT, ROUNDING, SURVIVED = (
    "killed",
    "equivalent",
    "equivalent up to rounding",
    "SURVIVED",
)

CONCERNED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("check", "check_load"), ("ERR", "STA")),
    **dict.fromkeys(
        ("save", "load", "state", "store", "configure", "train", "loaded"), ("STA", "CFG")
    ),
    **dict.fromkeys(("built", "reset_running_stats", "reset_parameters"), ("CFG", "STA")),
    **dict.fromkeys(("tracks", "track", "count", "batches", "factor", "blend"), ("RUN", "STA")),
    **dict.fromkeys(("estimated_mean", "estimated_var"), ("RUN",)),
    **dict.fromkeys(("fold", "folded"), ("FLD",)),
    **dict.fromkeys(
        ("record", "backward", "asked", "normalised_rows", "bias_gradient", "remember"), ("GRD",)
    ),
    **dict.fromkeys(
        ("weight_gradient", "projected", "input_gradient", "scale", "images"), ("GRD",)
    ),
    **dict.fromkeys(("double_backward", "curvature"), ("GRD",)),
}
"""Chapters to judge first, by function. The order saves time and has no effect on the outcome."""


def everyday(function: str) -> list[Property]:
    """Return the properties of a run at ci; those of the chapters of a function come first."""
    first = CONCERNED.get(function, ("TRN", "EVL", "RUN"))

    def place(prop: Property) -> int:
        chapter = prop.requirement.chapter
        return first.index(chapter) if chapter in first else len(first)

    found = [prop for prop in PROPERTIES.values() if not prop.deep and not prop.huge]
    return sorted(found, key=place)


def unshrunk(examples: int) -> settings:
    """Return the settings of ci for a number of examples, without shrinking.

    Whether a mutant is killed does not depend on the size of the case.
    """
    return PROFILES["ci"].settings(examples, shrink=False)


def judged(
    backend: Backend, prop: Property, dtype: str, seed: int, examples: int = 0
) -> Fate | None:
    """Return how a property kills a backend in a dtype, or None if it does not.

    It draws ``examples``, or the number of the profile ci.
    """
    first = next((claimed for claimed in CLAIMS.dtypes if claimed in prop.dtypes), dtype)
    share = 1.0 if dtype == first else OTHER_DTYPES
    cell = Cell(prop, backend, dtype)
    if cell.not_claimed:
        return None
    profile = unshrunk(examples or PROFILES["ci"].examples)
    try:
        Search(cell, profile, seed, share).examine()
    except Violation:
        by = prop.requirement.id
    except Exception as error:  # noqa: BLE001 - any other exception fails a run too
        by = f"{prop.requirement.id} ({type(error).__name__})"
    else:
        return None
    return Fate(KILLED, by, dtype, cell.tally.examples)


def killed_soon(backend: Backend, props: Iterable[Property], seed: int) -> Fate | None:
    """Return a kill at ci by a property that finds the mistake in :data:`FEW` examples already."""
    dtype = CLAIMS.dtypes[0]
    for prop in props:
        if judged(backend, prop, dtype, seed, FEW):
            fate = judged(backend, prop, dtype, seed)
            if fate is not None:
                return fate
    return None


def killed(
    backend: Backend, props: Iterable[Property], dtypes: Iterable[str], seed: int
) -> Fate | None:
    """Return the first kill of a run at ci."""
    fates = (judged(backend, prop, dtype, seed) for dtype in dtypes for prop in props)
    return next(filter(None, fates), None)


# The differential test


def drawn(seed: int, number: int) -> list[Case]:
    """Draw about this number of cases of everything that the kernel claims, in all dtypes."""
    everything: dict[str, Any] = {
        "parameters": PARAMETER_STYLES,
        "running": (*RUNNING_STYLES, ABSENT),
        "layouts": LAYOUTS,
        "claims": CLAIMS,
        "wrt": _SUBSETS,
    }
    differentiated = ("forward with gradients", "backward", "double backward")
    last = ("forward", "non-finite element", "train", "non-finite element")
    recipes: list[dict[str, Any]] = [
        {"shape": _SMALL, "strided": True, "history": histories(*WORDS, *USUAL)},
        {"shape": _SMALL, "built": True, "history": histories()},
        {
            "history": (*differentiated, "eval", *differentiated, "fold", *last),
            "strided": True,
        },
    ]
    found: list[Case] = []
    share = max(number // len(recipes) // len(DTYPES), 1)
    profile = settings(PROFILES["ci"].settings(share), phases=[Phase.generate])
    for dtype in CLAIMS.dtypes:
        for place, recipe in enumerate(recipes):
            draw = profile(
                given(cases(dtype=dtype, **everything | recipe))(lambda case: found.append(case))
            )
            seeded(f"{seed}:{dtype}:{place}")(draw)()
    return found


_SUBSETS = (
    ("input",),
    ("weight",),
    ("input", "weight"),
    ("bias",),
    ("input", "bias"),
    ("weight", "bias"),
    ("input", "weight", "bias"),
)
_SMALL = shapes("tiny", "different")


@cache
def played(seed: int, number: int) -> list[tuple[Case, int]]:
    """Return drawn cases, each with a fingerprint of the answers of the original."""
    original = backend_of(SOURCE.read_text("utf-8"))
    return [(case, hash(everything_of(play(case, original)))) for case in drawn(seed, number)]


def everything_of(observation: Observation) -> tuple[object, ...]:
    """Return every bit of an observation, except payloads of NaN and messages of exceptions."""
    return (
        _bits(observation.initial),
        *(
            (
                form_of(answer),
                *map(_bits, (answer.output, answer.after)),
                *((name, _bits(result)) for name, result in answer.results.items()),
            )
            for answer in observation.answers
        ),
    )


def _bits(answer: object) -> object:
    if isinstance(answer, State):
        return tuple(_bits(tensor) for _, tensor in answer.items())
    if not isinstance(answer, np.ndarray):
        return _form(answer)
    nan = np.isnan(answer)
    plain = np.where(nan, answer.dtype.type(0), answer) if nan.any() else answer
    return (
        answer.shape,
        answer.dtype.name,
        plain.tobytes(),
        nan.tobytes() if plain is not answer else b"",
    )


def form_of(answer: Answer) -> tuple[object, ...]:
    """Return everything in an answer but its numbers.

    These are shapes, dtypes, strides and exceptions, and the changes that a look at memory found.
    """
    after: object
    if isinstance(answer.after, State):
        after = tuple(_form(tensor) for _, tensor in answer.after.items())
    else:
        after = str(answer.after)
    seen = answer.seen()
    return (
        _form(answer.output),
        tuple((name, _form(result)) for name, result in answer.results.items()),
        after,
        tuple((name, _same(*pair)) for name, pair in answer.handed.items()),
        tuple((name, _same(seen[name], now)) for name, now in answer.later.items()),
        (answer.overrun, answer.shared, answer.mode),
    )


def _form(answer: object) -> object:
    if isinstance(answer, Raised):
        return answer.kinds
    if not isinstance(answer, np.ndarray):
        return str(answer)
    strides = take_apart(answer).strides if min(answer.strides, default=0) >= 0 else answer.strides
    # The stride of an axis of length 1 has no meaning.
    meaningful = tuple(s for s, n in zip(strides, answer.shape, strict=True) if n > 1)
    return answer.shape, answer.dtype.name, meaningful


def _same(one: object, other: object) -> bool:
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and same_bits(one, other)


class Difference(NamedTuple):
    """A difference of a mutant from the original: what differs, and on which case.

    ``what`` is empty if rounding alone explains the difference.
    """

    what: str
    case: Case


def told_apart(backend: Backend, seed: int, number: int = CASES) -> Difference | None:
    """Return the first difference beyond the bounds on drawn cases.

    If there is none, return the first difference within the bounds; if there is none, return None.
    """
    original = backend_of(SOURCE.read_text("utf-8"))
    rounding: Difference | None = None
    for case, fingerprint in played(seed, number):
        observation = play(case, backend)
        if hash(everything_of(observation)) != fingerprint:
            what = difference(case, play(case, original), observation)
            if what:
                return Difference(what, case)
            rounding = rounding or Difference("", case)
    return rounding


@np.errstate(all="ignore")
def difference(case: Case, one: Observation, other: Observation) -> str:
    """Return what differs by more than both bounds together, or an empty string.

    The numbers of a step are compared only if both layers were in the same state before it, or
    before the forward that it refers to. Other cases show the remaining differences.
    """
    if _bits(one.initial) != _bits(other.initial):
        return "the state that is built"
    config, past, alike_at = case.config, Past(), list[bool]()
    strayed = False
    for index, (a, b) in enumerate(zip(one.answers, other.answers, strict=False)):
        config = config_after(config, a.step)
        if form_of(a) != form_of(b):
            return f"the form of step {index}, {type(a.step).__name__}"
        alike = _bits(a.before) == _bits(b.before)
        strayed = strayed or not alike
        of_past = alike_at[a.step.of] if isinstance(a.step, Backward | DoubleBackward) else alike
        state = alike and not (strayed and isinstance(a.step, Restore))
        wanted = partial(expect, config, a.before, a.training, a.step, CLAIMS, past)
        if what := _differing(a, b, wanted, of_past, state):
            return f"{what} of step {index}, {type(a.step).__name__}"
        if isinstance(a.step, Forward):
            past.forwards.append(Context(config, a.before, a.training, a.step))
            alike_at.append(alike)
        elif isinstance(a.step, Save):
            past.checkpoints.append(a.before)
    return ""


def _differing(
    a: Answer, b: Answer, expected: Callable[[], Any], results: bool, state: bool
) -> str:
    """Return the name of a tensor that differs by more than both bounds, or an empty string.

    ``results`` and ``state`` say whether results, and states after the step, can be compared.
    """
    pairs: dict[str, tuple[object, object]] = {}
    if results:
        pairs |= {name: (result, b.returned().get(name)) for name, result in a.returned().items()}
    if state and isinstance(a.after, State) and isinstance(b.after, State):
        pairs |= {
            f"after: {name}": (tensor, getattr(b.after, name)) for name, tensor in a.after.items()
        }
    unequal = {
        name: (x, y)
        for name, (x, y) in pairs.items()
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and not same_bits(x, y)
    }
    if not unequal:
        return ""
    wanted = expected()
    for name, (x, y) in unequal.items():
        plain = name.removeprefix("after: ")
        bounded = wanted.results.get(name) if name in a.results else getattr(wanted, plain, None)
        if (
            not isinstance(bounded, Bounded)
            or bounded.bound.shape != x.shape
            or not _close(x, y, bounded)
        ):
            return plain
    return ""


def _close(x: Array, y: Array, bounded: Bounded) -> bool:
    """Whether two tensors differ by at most twice the bound.

    Outside the domain of the bound, they must be equal, both NaN or both finite.
    """
    a, b = x.astype(np.float64), y.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    near = np.where(
        bounded.inside, np.abs(a - b) <= 2 * bounded.bound, np.isfinite(a) & np.isfinite(b)
    )
    return bool((same | near).all())


# Running


def fate_of(mutant: Mutant, seed: int) -> Fate:
    """Judge a mutant: by a few examples, by the differential test, then by a whole run at ci."""
    start = time.monotonic()

    def done(fate: Fate) -> Fate:
        return fate._replace(seconds=time.monotonic() - start)

    try:
        backend = backend_of(mutant.source)
    except Exception as error:  # noqa: BLE001 - such a module fails every run
        return done(Fate(KILLED, f"import ({type(error).__name__})"))
    props = everyday(mutant.function)
    if soon := killed_soon(backend, props, seed):
        return done(soon)
    apart = told_apart(backend, seed)
    if apart is None:
        return done(Fate(EQUIVALENT))
    first = apart.case.config.dtype  # a dtype with a difference kills sooner
    dtypes = sorted(CLAIMS.dtypes, key=lambda dtype: dtype != first)
    if late := killed(backend, props, dtypes, seed):
        return done(late)
    return done(Fate(SURVIVED if apart.what else ROUNDING, apart.what, first))


def unmutated() -> Mutant:
    """Return the kernel without a change, in the form of a mutant."""
    return Mutant("unmutated", "forward", "", "", SOURCE.read_text("utf-8"))


def is_sound(seed: int) -> Fate | None:
    """Return what a run at ci finds in the kernel itself: None, unless the kernel is wrong."""
    backend = backend_of(unmutated().source)
    return killed(backend, everyday(""), CLAIMS.dtypes, seed)


def serve(connection: Connection, seed: int) -> None:
    """Judge each mutant that the connection receives, until it receives None."""
    while (mutant := connection.recv()) is not None:
        try:
            connection.send(fate_of(mutant, seed))
        except Exception:  # noqa: BLE001 - a mistake of the benchmark is no kill
            connection.send(f"{mutant.id}: {format_exc()}")


class Job:
    """A process that judges one mutant at a time; a new process follows a crash or timeout."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.mutant: Mutant | None = None
        self.start()

    def start(self) -> None:
        """Start the process."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()

    def take(self, mutant: Mutant | None) -> None:
        """Judge this mutant; with None, stop."""
        if mutant is not None and not self.process.is_alive():
            self.start()
        self.mutant, self.since = mutant, time.monotonic()
        if self.process.is_alive():
            self.connection.send(mutant)

    def answer(self, ready: bool) -> Fate | None:
        """Return the fate of the mutant: answered, crashed or timed out; None before that."""
        seconds = time.monotonic() - self.since
        if ready:
            try:
                answered: Fate | str = self.connection.recv()
            except (EOFError, OSError):
                fate = Fate(KILLED, "crash", seconds=seconds)
            else:
                if isinstance(answered, str):
                    raise RuntimeError(answered)
                return answered
        elif seconds > LIMIT:
            fate = Fate(KILLED, "time", seconds=seconds)
        else:
            return None
        self.process.kill()
        self.process.join()
        return fate


def fates_of(mutants: Sequence[Mutant], seed: int, jobs: int) -> dict[str, Fate]:
    """Judge mutants in several processes, and report each on standard error."""
    waiting, fates, start = list(reversed(mutants)), dict[str, Fate](), time.monotonic()
    busy = [Job(seed) for _ in range(min(jobs, len(mutants)))]
    for job in busy:
        job.take(waiting.pop())
    while busy:
        ready = wait([job.connection for job in busy], timeout=1.0)
        for job in list(busy):
            if (fate := job.answer(job.connection in ready)) is None or job.mutant is None:
                continue
            fates[job.mutant.id] = fate
            progress = f"{len(fates)} of {len(mutants)}, {time.monotonic() - start:.0f} s"
            outcome = f"{fate.outcome} {fate.by} {fate.dtype} {fate.seconds:.1f} s"
            sys.stderr.write(f"{progress}: {job.mutant.id}: {outcome}\n")
            job.take(waiting.pop() if waiting else None)
            if job.mutant is None:
                job.process.join()
                busy.remove(job)
    return {mutant.id: fates[mutant.id] for mutant in mutants}


# Reporting


def report(mutants: Sequence[Mutant], fates: Mapping[str, Fate]) -> float:
    """Print the outcomes, with the diffs of all mutants but the killed ones.

    Return the share of the mutants that count that is killed.
    """
    surviving = [m for m in mutants if fates[m.id].outcome == SURVIVED]
    explained = [m for m in surviving if (m.function, m.after) in EXPLAINED]
    left = [m for m in surviving if m not in explained]
    kills = [fate for fate in fates.values() if fate.outcome == KILLED]
    counts = Counter(fate.outcome for fate in fates.values())
    for mutant in left:
        print(f"{mutant.diff}\n  differs: {fates[mutant.id].by} ({fates[mutant.id].dtype})\n")
    for mutant in explained:
        print(f"{mutant.diff}\n  explained: {EXPLAINED[mutant.function, mutant.after]}\n")
    for outcome in (ROUNDING, EQUIVALENT):
        print(f"{outcome}:\n")
        for mutant in mutants:
            if fates[mutant.id].outcome == outcome:
                print(f"{mutant.diff}\n")
    examples = median([kill.examples for kill in kills] or [0])
    seconds = median([kill.seconds for kill in kills] or [0])
    soonest = f"median {examples:g} examples of the requirement, {seconds:.1f} s"
    share = len(kills) / max(len(kills) + len(left), 1)
    print(f"generated                  {len(mutants):5}")
    print(f"killed at ci               {len(kills):5}  ({soonest})")
    print(f"equivalent                 {counts[EQUIVALENT]:5}")
    print(f"equivalent up to rounding  {counts[ROUNDING]:5}")
    print(f"explained                  {len(explained):5}")
    print(f"surviving                  {len(left):5}")
    print(f"\n{share:.2%} of the mutants that count are killed; the bar is {BAR:.0%}")
    return share


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SUBSTRING",
        help="judge mutants with this in their id, function or lines; repeatable",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="judge about N mutants, every k-th")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run; ci uses 0")
    parser.add_argument("--list", action="store_true", help="print the mutants and judge none")
    return parser.parse_args()


def chosen(mutants: Sequence[Mutant], only: Sequence[str], limit: int | None) -> list[Mutant]:
    """Return the mutants whose diff has one of the substrings; with a limit, every k-th of them."""
    found = [mutant for mutant in mutants if not only or any(part in mutant.diff for part in only)]
    if not limit or not found:
        return found
    return found[:: ceil(len(found) / limit)]


def main() -> int:
    """Judge the mutants, report, and return the exit code."""
    options = arguments()
    every = mutants_of(SOURCE.read_text("utf-8"))
    mutants = chosen(every, options.only, options.limit)
    if options.list:
        print(*(mutant.diff for mutant in mutants), f"{len(mutants)} mutants", sep="\n\n")
        return 0
    # One thread per job: more threads than cores would slow all jobs down.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    if flaw := is_sound(options.seed):
        sys.stderr.write(
            f"the kernel without a change violates {flaw.by} in {flaw.dtype}; no mutant is judged\n"
        )
        return 2
    fates = fates_of(mutants, options.seed, options.jobs)
    share = report(mutants, fates)
    places = {
        (m.function, m.after) for m in every if m.id not in fates or fates[m.id].outcome == SURVIVED
    }
    if idle := EXPLAINED.keys() - places:
        for name, line in sorted(idle):
            sys.stderr.write(f"explained, but no survivor: {line!r} in {name}\n")
        return 2
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
