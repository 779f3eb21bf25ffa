"""Cases as strategies of Hypothesis: a config, an initial state and a history of steps.

This module alone imports Hypothesis; all other modules of the package draw from a generator of
random numbers.
"""

from __future__ import annotations

from random import Random
from typing import TypeVar, Unpack

from hypothesis import strategies as st

from bn_spec.backend.claims import EVERYTHING, Capabilities
from bn_spec.case.script import Case
from bn_spec.strategies.case_choices import CaseChoices, Choices
from bn_spec.strategies.choices import Choose
from bn_spec.strategies.drawing import draw_case

T = TypeVar("T")

_RANDOMS: st.SearchStrategy[Random] = st.randoms(use_true_random=False)


def cases(
    *, dtype: str = "float32", claims: Capabilities = EVERYTHING, **choices: Unpack[CaseChoices]
) -> st.SearchStrategy[Case]:
    """Return a strategy of cases.

    It shrinks towards a ramp in one tiny contiguous batch, with the first member of each sequence
    of choices.

    Args:
        dtype: A row of :data:`bn_spec.case.dtypes.DTYPES`.
        claims: What the backend under test claims; nothing else is drawn.
        **choices: What the cases are drawn from; see
            :class:`bn_spec.strategies.case_choices.Choices`.

    Raises:
        ConfigError: A choice is unknown.

    """
    return cases_of(Choices.of(choices), dtype, claims)


@st.composite
def cases_of(draw: st.DrawFn, choices: Choices, dtype: str, claims: Capabilities) -> Case:
    """Draw a case from choices that are complete, in a dtype, for a backend with these claims."""
    return draw_case(draw(_RANDOMS), dtype, claims, choices)


def chosen(choose: Choose[T]) -> st.SearchStrategy[T]:
    """Return a strategy of what a function chooses, for use outside of cases."""
    return _RANDOMS.map(choose)
