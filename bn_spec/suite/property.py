"""A property: a requirement, how its cases are drawn, and the function that judges them.

The suite declares each requirement together with the property that judges it. The docstring is the
sentence of the specification::

    @requirement("RUN-03", level="training", source=PAPER, momentum=(1.0,))
    def test_running_var_takes_the_unbiased_variance(cell: Cell, case: Case) -> None:
        \"\"\"running_var is updated with the unbiased variance of the batch.\"\"\"
        cell.judge(case, "running_var")
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, Unpack

from bn_spec.case.dtypes import DTYPES
from bn_spec.case.script import Case
from bn_spec.errors import ConfigError, allowed
from bn_spec.specification.requirement import REQUIREMENTS, Requirement
from bn_spec.strategies.case_choices import CaseChoices, Choices
from bn_spec.suite.regions import REGIONS, Wanted, alternatives

Body: TypeAlias = Callable[[Any, Case], None]
"""The function of a property: a :class:`bn_spec.suite.cell.Cell` judges one drawn case with it."""


class Runs(Protocol):
    """What a test of the suite receives: a :class:`bn_spec.suite.search.Search`."""

    def run(self) -> None:
        """Look for a case that fails, and raise the violation."""


@dataclass(frozen=True)
class Property:
    """The property that judges one requirement.

    Attributes:
        requirement: The requirement.
        body: The function that judges one case.
        choices: What the cases are drawn from.
        effort: Number of examples, as a multiple of the profile's.
        deep: Runs in the nightly profile only, or when named.
        huge: Has a single case that takes minutes and gigabytes; runs only when named.
        dtypes: Dtypes in which the requirement is judged.
        reaches: Regions that the cases must reach. One region of a tuple is enough.

    Raises:
        ConfigError: A region does not exist.

    """

    requirement: Requirement
    body: Body
    choices: Choices
    effort: float = 1.0
    deep: bool = False
    huge: bool = False
    dtypes: tuple[str, ...] = tuple(DTYPES)
    reaches: tuple[Wanted, ...] = ()

    def __post_init__(self) -> None:
        for wanted in self.reaches:
            for region in alternatives(wanted):
                if region not in REGIONS:
                    raise ConfigError(allowed("region", region, sorted(REGIONS)))


PROPERTIES: dict[str, Property] = {}
"""The properties declared so far, by the id of their requirement."""


def requirement(
    id: str,
    *,
    level: str,
    source: str,
    needs: tuple[str, ...] = (),
    convention: str = "",
    effort: float = 1.0,
    deep: bool = False,
    huge: bool = False,
    dtypes: tuple[str, ...] = tuple(DTYPES),
    reaches: tuple[Wanted, ...] = (),
    **choices: Unpack[CaseChoices],
) -> Callable[[Body], Callable[[Runs], None]]:
    """Declare a requirement and the property that judges it.

    The docstring of the decorated function is the sentence of the requirement. Its first paragraph
    counts; a final period is dropped. The function becomes a test of a
    :class:`bn_spec.suite.search.Search`.

    Args:
        id: Chapter and number, as in ``RUN-03``.
        level: See :class:`bn_spec.specification.requirement.Requirement`, as for ``source``,
            ``needs`` and ``convention``.
        source: The document or issue that the sentence follows from.
        needs: Claims that a backend must make to be judged.
        convention: Field of the dialect that decides what the sentence means.
        effort: See :class:`Property`, as for ``deep``, ``huge``, ``dtypes`` and ``reaches``.
        deep: Run in the nightly profile only, or when named.
        huge: Run only when named.
        dtypes: Dtypes in which the requirement is judged.
        reaches: Regions that the cases must reach.
        **choices: What the cases are drawn from; see
            :class:`bn_spec.strategies.case_choices.Choices`.

    Raises:
        ConfigError: A name is unknown, the id or sentence is malformed, or the id is declared
            twice.

    """

    def declare(body: Body) -> Callable[[Runs], None]:
        sentence = _sentence_of(body)
        declared = Requirement(id, sentence, level, source, needs, convention)
        drawn_from = Choices.of(choices)
        prop = Property(declared, body, drawn_from, effort, deep, huge, dtypes, reaches)
        # These two come last, so that a refused declaration leaves nothing behind.
        REQUIREMENTS.declare(declared)
        PROPERTIES[id] = prop

        @functools.wraps(body)
        def test(search: Runs) -> None:
            search.run()

        # pytest reads the names of fixtures off the signature, which `wraps` took from the body.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("search", kind)]
        )
        test.bn_property = prop  # type: ignore[attr-defined]
        return test

    return declare


def _sentence_of(body: Body) -> str:
    paragraph = (inspect.getdoc(body) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).removesuffix(".")
