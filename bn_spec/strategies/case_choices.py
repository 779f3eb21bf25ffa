"""What the cases of a property are drawn from, and the part of it that a backend claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict, TypeVar

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.case.dtypes import Array
from bn_spec.case.layouts import USUAL_LAYOUTS
from bn_spec.case.steps import DIFFERENTIABLE
from bn_spec.errors import ConfigError, allowed
from bn_spec.strategies.choices import Choose, among
from bn_spec.strategies.shapes import Shape, shapes
from bn_spec.strategies.signatures import REPRESENTATIVES, fixed, nearest
from bn_spec.strategies.values import Recipe, gradients, values

T = TypeVar("T")

EPS = (1e-5, 1e-3, 1.0, 1e-12, 100.0, 1e-20, 0.1, 1e4)
"""eps over its useful range: the default first, then far above and far below usual variances."""

MOMENTA = (0.1, 1.0, 0.0, None, 0.5, 0.9, 0.01, 1 / 3, 0.999, 0.25)
"""Momenta: the default first, both ends, the cumulative mean, and values between."""

ABSENT = "absent"
"""The style of parameters or running statistics that the layer does not have."""

PARAMETER_STYLES = ("identity", "distinct", "equal", "signs", "random", "loud", ABSENT)
"""Default styles of weight and bias; see :data:`bn_spec.strategies.tensors.PARAMETERS`."""

RUNNING_STYLES = ("initial", "distinct", "equal", "random", "large", "small")
"""Default styles of the running statistics; see :data:`bn_spec.strategies.tensors.RUNNING`."""

KEEPING = tuple(style for style in RUNNING_STYLES if style != "initial")
"""Styles of running statistics that differ from those of a new layer.

So a case shows whether a layer keeps them and whether it reads them.
"""

SPECIAL = (np.nan, np.inf, -np.inf, -0.0)
"""Special elements: NaN, the infinities, and negative zero."""


_ANY_SHAPE = shapes()
_ANY_VALUE = values()
_ANY_GRADIENT = gradients()


class CaseChoices(TypedDict, total=False):
    """The keyword arguments of :class:`Choices`, for type checkers."""

    history: Sequence[str] | Choose[list[str]]
    wrt: Sequence[tuple[str, ...]]
    gradient: Choose[Recipe]
    shape: Choose[Shape]
    value: Choose[Recipe]
    layouts: Sequence[str]
    least: int
    eps: Sequence[float]
    momentum: Sequence[float | None]
    parameters: Sequence[str]
    running: Sequence[str]
    special: Sequence[float]
    built: bool
    strided: bool
    change: Callable[[Array], Array] | None


@dataclass(frozen=True)
class Choices:
    """What the cases of a property are drawn from; sequences have their simplest member first.

    Attributes:
        history: The steps, as words of :data:`bn_spec.strategies.histories.WORDS`, or a function
            that chooses them. Each forward draws a shape of its own with the same number of
            channels, each backward a dy.
        wrt: Sets of tensors whose gradients a forward with gradients is asked for.
        gradient: Recipes for dy, and for the cotangents of a double backward.
        shape: Shapes (N, C, H, W) of the inputs.
        value: Recipes for the inputs.
        layouts: Memory layouts of inputs and gradients, as far as they are claimed.
        least: Minimum number of values per channel; N is raised to reach it.
        eps: Values of eps.
        momentum: Values of momentum.
        parameters: Styles of weight and bias; :data:`ABSENT` means affine=False.
        running: Styles of the running statistics; :data:`ABSENT` means track_running_stats=False.
        special: Special elements that are put among ordinary numbers.
        built: Keep the state of a new layer, instead of loading a drawn one.
        strided: Place the tensors of the state in memory with gaps, where that is claimed.
        change: A function applied to each input before it is placed in memory.

    """

    history: Sequence[str] | Choose[list[str]] = ("forward",)
    wrt: Sequence[tuple[str, ...]] = (DIFFERENTIABLE,)
    gradient: Choose[Recipe] = _ANY_GRADIENT
    shape: Choose[Shape] = _ANY_SHAPE
    value: Choose[Recipe] = _ANY_VALUE
    layouts: Sequence[str] = USUAL_LAYOUTS
    least: int = 2
    eps: Sequence[float] = EPS
    momentum: Sequence[float | None] = MOMENTA
    parameters: Sequence[str] = PARAMETER_STYLES
    running: Sequence[str] = RUNNING_STYLES
    special: Sequence[float] = SPECIAL
    built: bool = False
    strided: bool = False
    change: Callable[[Array], Array] | None = None

    @staticmethod
    def of(choices: CaseChoices) -> Choices:
        """Return choices with these values, and defaults for all others.

        Raises:
            ConfigError: A name is unknown; the message has the nearest one.

        """
        names = [field.name for field in fields(Choices)]
        for name in choices:
            if name not in names:
                raise ConfigError(allowed("choice", name, names))
        return Choices(**choices)

    @property
    def about_layouts(self) -> bool:
        """Whether layouts were chosen, rather than left at their default."""
        return self.layouts is not USUAL_LAYOUTS


@dataclass(frozen=True)
class Claimed:
    """The part of :class:`Choices` that a backend claims, for one case.

    Attributes:
        claims: The claims of the backend.
        choices: The choices, narrowed to what is claimed.
        first: The shape of the first input.
        layouts: Memory layouts of inputs.
        gradient_layouts: Memory layouts of gradients.

    """

    claims: Capabilities
    choices: Choices
    first: Shape
    layouts: tuple[str, ...]
    gradient_layouts: tuple[str, ...]


def narrowed(choices: Choices, claims: Capabilities, first: Shape) -> Claimed:
    """Return the claimed part of the choices.

    Args:
        choices: What the cases of the property are drawn from.
        claims: The claims of the backend.
        first: The drawn shape of the first input.

    """
    known = tuple(layout for layout in choices.layouts if layout in claims.layouts)
    layouts = gradient_layouts = known or claims.layouts
    if claims.expensive_signatures:
        place = nearest(first)
        first = REPRESENTATIVES[place]
        if not choices.about_layouts:
            layouts = fixed(layouts, place)
        choices = _of_few_signatures(choices, place, first)
    choices = replace(
        choices,
        eps=_claimed_eps(choices.eps, claims),
        momentum=_claimed_momenta(choices.momentum, claims) or (MOMENTA[0],),
        parameters=[s for s in choices.parameters if claims.affine_off or s != ABSENT],
        running=[s for s in choices.running if claims.tracking_off or s != ABSENT],
    )
    return Claimed(claims, choices, first, layouts, gradient_layouts)


def _of_few_signatures(choices: Choices, place: int, shape: Shape) -> Choices:
    """Return choices that leave one signature for the representative shape at a place."""
    momenta = [m for m in choices.momentum if m is not None] or choices.momentum
    return replace(
        choices,
        shape=among([shape]),
        wrt=fixed(choices.wrt, place),
        eps=fixed(choices.eps, place, EPS[0]),
        momentum=fixed(momenta, place, MOMENTA[0]),
        parameters=_present(choices.parameters),
        running=_present(choices.running),
    )


def _present(styles: Sequence[str]) -> Sequence[str]:
    return [style for style in styles if style != ABSENT] or styles


def _claimed_eps(eps: Sequence[float], claims: Capabilities) -> Sequence[float]:
    """Return the values of eps within the dialect's range, or the nearest one to the first."""
    least, largest = claims.dialect.eps_range
    inside = [e for e in eps if least <= e <= largest]
    return inside or [max(least, min(largest, eps[0]))]


def _claimed_momenta(
    momenta: Sequence[float | None], claims: Capabilities
) -> tuple[float | None, ...]:
    flags: dict[float | None, bool] = {
        None: claims.cumulative_momentum,
        0: claims.momentum_zero,
    }
    return tuple(momentum for momentum in momenta if flags.get(momentum, True))
