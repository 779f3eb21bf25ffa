"""The forms in which kernels compute second derivatives, in a chosen arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from bn_spec.case.dtypes import Floats
from tests.backward_arithmetic import (
    OF_BIAS,
    OF_WEIGHT,
    Seen,
)
from tests.backward_forms import (
    Products,
    centred,
    shifted,
)


def second_in_torch(k: Seen, dy: Floats, v: Floats) -> dict[str, Floats]:
    """Return ddy, ddx and ddweight in the expanded form of torch's batchnorm_double_backward."""
    fl, n, s, deviations = k.fl, k.n, k.s, k.deviations(k.fl)
    s_2 = fl(s * s)
    s_3 = fl(s_2 * s)
    x_s_3 = fl(deviations * s_3)
    dy_x, v_x, sum_dy, sum_v = (
        k.sum(fl(dy * deviations)),
        k.sum(fl(v * deviations)),
        k.sum(dy),
        k.sum(v),
    )
    of_means = fl.add(fl(fl(sum_v * sum_dy) / n) - k.sum(fl(dy * v)))
    inner = fl.add(of_means + fl(fl(fl(s_2 * dy_x) * v_x) * fl(np.asarray(3.0 / n))))
    along_x = fl(fl(x_s_3 * inner) / n)
    along_dy = fl(fl(fl(v_x * s_3) / n) * fl.add(fl(sum_dy / n) - dy))
    along_v = fl(fl(fl(dy_x * s_3) / n) * fl.add(fl(sum_v / n) - v))
    ddx = fl(k.weight * fl.add(fl.add(along_x + along_dy) + along_v))
    of_weight = fl.add(fl(dy * s) - fl(fl(s * sum_dy) / n))
    of_weight = fl.add(of_weight - fl(fl(x_s_3 * dy_x) / n))

    def first(rows: Floats, total: Floats, products: Floats, weight: Floats | float) -> Floats:
        bracket = fl.add(fl.add(fl(n * rows) - total) - fl(fl(deviations * s_2) * products))
        return fl(fl(fl(weight * s) / n) * bracket)

    ddy = fl.add(first(v, sum_v, v_x, k.weight) + fl(fl(OF_WEIGHT * deviations) * s))
    return {
        "ddy": fl.add(fl.add(ddy + OF_BIAS)),
        "ddx": fl.add(fl.add(ddx + fl(OF_WEIGHT * of_weight))),
        "ddweight": fl.add(k.sum(fl(v * first(dy, sum_dy, dy_x, 1.0)))),
    }


def second_projected(
    k: Seen, dy: Floats, v: Floats, products: Products = centred
) -> dict[str, Floats]:
    """Return ddy, ddx and ddweight by the projections p of dy and q of v.

    ddx is −weight s² (x̂ mean(v p) + c q + a p) + ẇ s p.
    """
    fl, n, s, x_hat = k.fl, k.n, k.s, k.x_hat(k.fl)

    def projection(rows: Floats) -> tuple[Floats, Floats]:
        along = fl(products(k, rows) / n)
        return along, fl.add(fl.add(rows - fl(k.sum(rows) / n)) - fl(x_hat * along))

    (c, p), (a, q) = projection(dy), projection(v)
    sum_v_p = k.sum(fl(v * p))
    curvature = fl.add(fl.add(fl(x_hat * fl(sum_v_p / n)) + fl(c * q)) + fl(a * p))
    ddx = fl.add(fl(fl(OF_WEIGHT * s) * p) - fl(fl(k.weight * fl(s * s)) * curvature))
    ddy = fl.add(fl.add(fl(fl(k.weight * s) * q) + fl(OF_WEIGHT * x_hat)) + OF_BIAS)
    return {"ddy": fl.add(ddy), "ddx": fl.add(ddx), "ddweight": fl.add(fl(s * sum_v_p))}


def second_expanded(
    k: Seen, dy: Floats, v: Floats, products: Products = centred
) -> dict[str, Floats]:
    """Return ddy, ddx and ddweight by the means alone.

    ddx has the formula of the reference; ddweight is n s (mean(v dy) − v̄ ḡ − a c).
    """
    fl, n, s, x_hat = k.fl, k.n, k.s, k.x_hat(k.fl)
    g, v_mean, c, a = (
        fl(total / n) for total in (k.sum(dy), k.sum(v), products(k, dy), products(k, v))
    )
    a_c = fl(a * c)
    less_means = fl.add(fl(k.sum(fl(v * dy)) / n) - fl(v_mean * g))
    inner = fl.add(less_means - fl(3.0 * a_c))
    dy_off, v_off = fl.add(dy - g), fl.add(v - v_mean)
    curvature = fl.add(fl.add(fl(x_hat * inner) + fl(c * v_off)) + fl(a * dy_off))
    of_weight = fl(fl(OF_WEIGHT * s) * fl.add(dy_off - fl(x_hat * c)))
    first = fl(fl(k.weight * s) * fl.add(v_off - fl(x_hat * a)))
    return {
        "ddy": fl.add(fl.add(fl.add(first + fl(OF_WEIGHT * x_hat)) + OF_BIAS)),
        "ddx": fl.add(fl.add(of_weight - fl(fl(k.weight * fl(s * s)) * curvature))),
        "ddweight": fl.add(fl(fl(s * fl.add(less_means - a_c)) * n)),
    }


SECOND: Mapping[str, tuple[bool, Callable[[Seen, Floats, Floats], dict[str, Floats]]]] = {
    "as in torch": (True, second_in_torch),
    "projected": (True, second_projected),
    "expanded": (True, second_expanded),
    "projected, shifted sums": (False, partial(second_projected, products=shifted)),
    "expanded, shifted sums": (False, partial(second_expanded, products=shifted)),
}
"""Whether a form satisfies the claim ``centred_products``, and the form."""
