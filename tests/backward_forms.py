"""The forms in which kernels compute gradients, in a chosen arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from bn_spec.case.dtypes import Floats
from tests.backward_arithmetic import (
    Seen,
)

Products: TypeAlias = Callable[[Seen, Floats], Floats]
"""Forms of Σ dy x̂, shape (C, 1)."""


def centred(k: Seen, dy: Floats) -> Floats:
    return k.fl(k.sum(k.fl(dy * k.deviations(k.fl))) * k.s)


def with_x_hat(k: Seen, dy: Floats) -> Floats:
    return k.sum(k.fl(dy * k.x_hat(k.fl)))


def with_x_hat_by_difference(k: Seen, dy: Floats) -> Floats:
    return k.sum(k.fl(dy * k.x_hat_by_difference(k.fl)))


def shifted(k: Seen, dy: Floats) -> Floats:
    return k.fl(k.fl.add(k.sum(k.fl(dy * k.x)) - k.fl(k.mu * k.sum(dy))) * k.s)


PRODUCTS: Mapping[str, tuple[bool, Products]] = {
    "centred": (True, centred),
    "with x̂": (True, with_x_hat),
    "with x̂ by difference": (True, with_x_hat_by_difference),
    "shifted": (False, shifted),
}
"""Whether a form satisfies the claim ``centred_products``, and the form."""

Inputs: TypeAlias = Callable[[Seen, Floats, Floats, Floats], Floats]
"""Forms of weight s (dy − ḡ − x̂ c), from dy, Σ dy and Σ dy x̂."""


def as_it_reads(
    k: Seen, dy: Floats, sum_dy: Floats, products: Floats, by_difference: bool = False
) -> Floats:
    ew, x_hat = k.ew, k.x_hat_by_difference(k.ew) if by_difference else k.x_hat(k.ew)
    bracket = ew.add(ew.add(dy - k.kept(sum_dy / k.n)) - ew(x_hat * k.kept(products / k.n)))
    return ew(ew(k.weight * k.s) * bracket)


def as_in_torch(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    ew = k.ew
    factor = ew(ew(products * k.s) / k.n)
    bracket = ew.add(ew.add(dy - k.kept(sum_dy / k.n)) - ew(k.deviations(ew) * factor))
    return ew(ew(bracket * k.s) * k.weight)


def times_n(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    ew = k.ew
    bracket = ew.add(ew.add(ew(k.n * dy) - sum_dy) - ew(k.x_hat(ew) * products))
    return ew(ew(ew(k.weight * k.s) / k.n) * bracket)


def folded(k: Seen, dy: Floats, sum_dy: Floats, products: Floats) -> Floats:
    """Return a dy + b x + d, as caffe2 does: a x̂ c as two products of a and s c, one with mu."""
    ew = k.ew
    a, s_c, one_by_n = ew(k.weight * k.s), ew(products * k.s), ew(np.asarray(1 / k.n))
    b = -ew(ew(a * s_c) * one_by_n)
    d = ew(ew(a * ew.add(ew(k.mu * s_c) - sum_dy)) * one_by_n)
    return ew.add(ew.add(ew(a * dy) + ew(b * k.x)) + d)


INPUTS: Mapping[str, Inputs] = {
    "as it reads": as_it_reads,
    "x̂ by difference": partial(as_it_reads, by_difference=True),
    "as in torch": as_in_torch,
    "times n": times_n,
    "folded": folded,
}


def gradients_in_every_form(k: Seen, dy: Floats, products: Products) -> dict[str, Floats]:
    """Return dweight, dbias, and dx in every form, by name."""
    dy = k.io.read(dy)
    sum_dy, sum_products = k.sum(dy), products(k, dy)
    if k.kept.format != k.fl.format:
        sum_products = k.kept(sum_products)
    inputs = {
        f"dx {name}": k.io(form(k, dy, sum_dy, sum_products)) for name, form in INPUTS.items()
    }
    return {"dweight": k.io(sum_products), "dbias": k.io(sum_dy), **inputs}
