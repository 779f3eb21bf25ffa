"""A backward kernel that is worse than its claim exceeds the bounds of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from bn_spec.case.dtypes import DType, Floats
from bn_spec.oracle.bounds import Accuracy, Model
from bn_spec.strategies import chosen, gradients, values
from tests.arithmetic import (
    two_pass,
)
from tests.backward_arithmetic import (
    COARSE,
    COARSE_FORMAT,
    FORWARDS,
    Data,
    Exact,
    Seen,
    U,
    data,
    each_forward,
    share,
    shares,
)
from tests.backward_forms import (
    centred,
    gradients_in_every_form,
    shifted,
)
from tests.common import examples

RESULTS = ("dx", "dweight", "dbias")


def unshrunk(number: int) -> settings:
    """Return the settings for a search whose finding need not be small."""
    return settings(examples(number), phases=[Phase.generate])


def only_centred(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dx": k.ew(k.ew(k.weight * k.s) * k.ew.add(dy - k.ew(k.sum(dy) / k.n)))}


def without_the_mean(k: Seen, dy: Floats) -> dict[str, Floats]:
    along = k.fl(centred(k, dy) / k.n)
    return {"dx": k.ew(k.ew(k.weight * k.s) * k.ew.add(dy - k.ew(k.x_hat(k.ew) * along)))}


def without_s(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dweight": k.sum(k.fl(dy * k.deviations(k.fl)))}


def mean_for_sum(k: Seen, dy: Floats) -> dict[str, Floats]:
    return {"dbias": k.fl(k.sum(dy) / k.n)}


MILD = data(
    values(("gaussian", "ramp"), scales=(0,), offsets=(0.0, 1.0)),
    st.tuples(
        chosen(gradients(("gaussian",), scales=(0,), offsets=(0.0, 1.0))), st.just("unrelated")
    ),
)


@pytest.mark.parametrize(
    "faulty",
    [only_centred, without_the_mean, without_s, mean_for_sum],
    ids=lambda kernel: str(kernel.__name__),
)
@each_forward
def test_a_missing_term_exceeds_a_bound_of_every_grade(
    forward: str, faulty: Callable[[Seen, Floats], dict[str, Floats]]
) -> None:
    grade, kernel = FORWARDS[forward]

    def exceeds(drawn: Data) -> bool:
        model = Model(COARSE, drawn.n, Accuracy(grade))
        got = faulty(Seen.of(drawn, model, kernel), drawn.dy)
        return max(shares(got, Exact.of(drawn, model).first()).values()) > 1

    find(MILD, exceeds, settings=unshrunk(200))


@pytest.mark.parametrize("result", RESULTS)
@each_forward
def test_a_kernel_in_half_of_the_precision_exceeds_its_bound(forward: str, result: str) -> None:
    """The kernel has half of the digits that the model has, as float16 has of float32."""
    grade, kernel = FORWARDS[forward]
    half = replace(COARSE_FORMAT, name="half", u=U**0.5)

    def exceeds(drawn: Data) -> bool:
        claimed, real = (
            Model(DType(f.name, f, f, f), drawn.n, Accuracy(grade)) for f in (COARSE_FORMAT, half)
        )
        got = gradients_in_every_form(Seen.of(drawn, real, kernel), drawn.dy, centred)
        name = "dx as it reads" if result == "dx" else result
        return share(got[name], *Exact.of(drawn, claimed).first()[result]) > 1

    find(MILD, exceeds, settings=unshrunk(300))


def test_sums_that_are_shifted_exceed_the_bound_of_those_that_claim_centred_products() -> None:
    def exceeds(drawn: Data) -> bool:
        model = Model(COARSE, drawn.n, Accuracy("two-pass", centred_products=True))
        got = gradients_in_every_form(Seen.of(drawn, model, two_pass), drawn.dy, shifted)
        return share(got["dweight"], *Exact.of(drawn, model).first()["dweight"]) > 1

    find(data(), exceeds, settings=unshrunk(500))
