"""What a law says follows from the formula, exactly, in rational numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn_spec.case.dtypes import DTYPES, Array
from bn_spec.case.laws import LAWS, is_exact, of_two_values, two_values
from bn_spec.strategies import Recipe, chosen, shapes
from tests.common import examples

rational = np.vectorize(Fraction, otypes=[object])


def normalised(x: Array, eps: Fraction, weight: Array) -> Array:
    """Return weight · x̂ |x̂|, which says as much as weight · x̂ and is rational."""
    values = rational(x.astype(np.float64))
    n = values.size // values.shape[1]
    deviations = values - values.sum(axis=(0, 2, 3), keepdims=True) / n
    var = (deviations**2).sum(axis=(0, 2, 3), keepdims=True) / n
    followed: Array = weight.reshape(1, -1, 1, 1) * deviations * abs(deviations) / (var + eps)
    return followed


@st.composite
def whole_numbers(draw: st.DrawFn) -> Array:
    """Draw a batch of few small integers, or of these times a power of two."""
    family, scale = (
        draw(st.sampled_from(("small integers", "ramp"))),
        draw(st.sampled_from((0, 3, -3))),
    )
    shape = draw(
        chosen(shapes("tiny", "different", where=lambda shape: shape[1] < prod(shape) < 100))
    )
    return Recipe(family, scale, 0.0, draw(st.integers(0, 100))).make(shape, DTYPES["float32"])


@pytest.mark.parametrize("name", LAWS)
def test_what_a_law_says_follows_from_the_formula(name: str) -> None:
    law = LAWS[name]

    @examples(25)
    @given(whole_numbers(), st.sampled_from((1e-5, 0.5)))
    def follows(x: Array, eps: float) -> None:
        weight, changed = np.arange(3, 3 + x.shape[1]), law.change(x)
        assert is_exact(law, x, changed)
        after = normalised(
            changed,
            Fraction(eps) * Fraction(law.eps_factor),
            weight[::-1] if law.parameters else weight,
        )
        assert (after == law.image(normalised(x, Fraction(eps), weight))).all()

    follows()


@pytest.mark.parametrize("name", ["scaled", "channels reversed"])
def test_a_law_changes_besides_the_input_what_it_must(name: str) -> None:
    law = replace(LAWS[name], parameters=False, eps_factor=1.0)
    x, weight = np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3), np.array([3, 4])
    after = normalised(law.change(x), Fraction(1, 2) * Fraction(law.eps_factor), weight)
    assert not (after == law.image(normalised(x, Fraction(1, 2), weight))).all()


@pytest.mark.parametrize(
    ("name", "dtype", "values", "exact"),
    [
        pytest.param("shifted", "float32", [0, 1, -2.5], True, id="shifted"),
        pytest.param("shifted", "float32", [1, 2.0**-22], True, id="shifted by 2, to the last bit"),
        pytest.param("shifted", "float32", [1, 2.0**-23], False, id="shifted, one bit lost"),
        pytest.param(
            "shifted", "float32", [2.0**-23, 1], False, id="shifted, one bit of the first lost"
        ),
        pytest.param(
            "shifted", "bfloat16", [129, 2], False, id="shifted, one bit of bfloat16 lost"
        ),
        pytest.param(
            "shifted", "bfloat16", [129, 1], True, id="shifted by 255 instead of 256, but all alike"
        ),
        pytest.param(
            "shifted", "float64", [1, 2.0**-52], False, id="shifted, one bit of float64 lost"
        ),
        pytest.param("shifted", "float16", [40000, 0], False, id="shifted to infinity"),
        pytest.param("shifted", "float32", [np.nan, 1], False, id="shifted, NaN"),
        pytest.param("shifted", "float32", [np.inf, 1], False, id="shifted, infinite"),
        pytest.param("scaled", "float16", [8000, 1], True, id="scaled"),
        pytest.param("scaled", "float16", [2.0**-24, 2.0**-20], True, id="scaled, subnormal"),
        pytest.param("scaled", "float16", [9000, 1], False, id="scaled to infinity"),
        pytest.param(
            "scaled", "float64", [2.0**1021, 1], False, id="scaled to infinity in float64"
        ),
        pytest.param("scaled", "float32", [np.nan, 1], False, id="scaled, NaN"),
        pytest.param("scaled", "float32", [np.inf, 1], False, id="scaled, infinite"),
        pytest.param("twice over", "float16", [np.nan, 65504], True, id="copied"),
        pytest.param("samples reversed", "float16", [np.inf, 65504], True, id="reversed"),
    ],
)
def test_a_change_is_exact_where_it_rounds_nothing(
    name: str, dtype: str, values: list[float], exact: bool
) -> None:
    law, x = LAWS[name], np.array(values).reshape(-1, 1, 1, 1).astype(DTYPES[dtype].data.dtype)
    with np.errstate(all="ignore"):
        assert is_exact(law, x, law.change(x)) is exact


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_values_are_recognised_in_every_format(dtype: str) -> None:
    @examples(20)
    @given(
        chosen(shapes("tiny", "different", where=lambda shape: prod(shape) // shape[1] % 2 == 0))
    )
    def are_recognised(shape: tuple[int, int, int, int]) -> None:
        x = of_two_values(np.zeros(shape, DTYPES[dtype].data.dtype))
        found = two_values(x)
        assert found is not None
        centre, half, signs = (rational(part) for part in found)
        c, a = centre.reshape(1, -1, 1, 1), half.reshape(1, -1, 1, 1)
        assert (c + signs * a == rational(x.astype(np.float64))).all()
        assert (signs**2 == 1).all()
        assert (signs.sum(axis=(0, 2, 3)) == 0).all()
        assert (half > 0).all()

    are_recognised()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0, 1, 2, 1], id="three values"),
        pytest.param([0, 1, 1, 1], id="not as often"),
        pytest.param([0, 1, 1], id="an odd number of values"),
        pytest.param([3, 3, 3, 3], id="one value"),
        pytest.param([0, 0, 0, 1e-30], id="a value that is almost the other"),
        pytest.param([1, 2.0**-60, 1, 2.0**-60], id="a centre that float64 does not hold"),
        pytest.param([0, np.nan, 0, np.nan], id="NaN"),
        pytest.param([0, np.inf, 0, np.inf], id="infinite"),
    ],
)
def test_what_is_not_two_values_as_often_is_not_taken_for_it(values: list[float]) -> None:
    channels = np.array(
        [values, [1, -1] * (len(values) // 2) + [1] * (len(values) % 2)], np.float64
    )
    with np.errstate(invalid="ignore"):
        assert two_values(channels.T.reshape(-1, 2, 1, 1)) is None
