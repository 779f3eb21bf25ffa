"""NUM: accuracy.

How large errors may be: far from zero, over thousands of values, at the ends of the number range.
The claims about arithmetic set the bounds. NUM-07 needs the claim ``subnormals``, NUM-08 and NUM-09
need ``unbiased``, and NUM-13 needs ``overflow_safe``.
"""

from bn_spec.case.script import Case
from bn_spec.specification.requirement import BOUNDS
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    BEYOND,
    FAMILIES,
    MIXED,
    OFFSETS,
    PARAMETER_STYLES,
    WIDE,
    one_channel_shifted,
    shapes,
    values,
)
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement
from bn_spec.suite.regions import decades

VALUES = ("output", "running_mean", "running_var")
FAR = (1e4, 1e6, -1e3, 100.0, -10.0, 1.0, 0.0)
TINY_EPS = (1e-5, 1e-12, 1e-20)


@requirement(
    "NUM-01",
    level="numerics",
    source=f"{BOUNDS}; Chan & Lewis 1979",
    reaches=(decades("mean/σ", 3, 8),),
    shape=shapes("tiny", "small", "spatial edge"),
    value=values(
        ("ramp", "gaussian", "two-valued", "small integers", MIXED),
        scales=(0, 10, -10),
        offsets=FAR,
    ),
    momentum=(1.0,),
    eps=TINY_EPS,
)
def test_errors_grow_with_conditioning_as_claimed(cell: Cell, case: Case) -> None:
    """however far the mean lies from zero, errors grow no faster than the claimed grade allows."""
    cell.measure(case, *VALUES)


@requirement(
    "NUM-02",
    level="numerics",
    source=f"{BOUNDS}; uxlfoundation/oneDNN, benchdnn",
    shape=shapes("powers of two"),
    value=values((BALANCED,), scales=(0, 1, -3, 10), offsets=(0.0, 1.0, -10.0, 100.0)),
    momentum=(1.0, 0.5),
)
def test_exact_sums_leave_a_few_roundings(cell: Cell, case: Case) -> None:
    """where every partial sum is exact in any order, the results are within a few roundings of the
    exact ones.
    """
    cell.judge(case, *VALUES)


@requirement(
    "NUM-03",
    level="numerics",
    source=f"{BOUNDS}; pytorch/pytorch#5410",
    reaches=("constant channel", decades("var/eps", -8, -1)),
    shape=shapes("tiny", "small"),
    value=values(
        ("constant", "gaussian", "one-hot", MIXED),
        scales=(0, -10, -20, 10),
        offsets=(0.0, 1.0, *FAR),
    ),
    change=one_channel_shifted,
    eps=(*TINY_EPS, 1.0, 1e4),
)
def test_channels_far_from_zero_or_without_variance_cost_nothing(cell: Cell, case: Case) -> None:
    """a channel that lies far from zero, or whose variance is zero or less than eps, reduces
    neither its own accuracy nor that of others.
    """
    cell.judge(case, *VALUES)


@requirement(
    "NUM-04",
    level="numerics",
    source=BOUNDS,
    history=("forward", "eval", "forward"),
    value=values(("two-valued", "gaussian", "one-hot"), scales=(0, 3), offsets=(0.0, 1.0)),
    parameters=("cancelling", "loud"),
    eps=(1e-5, 1e-3, 1.0),
)
def test_cancellation_with_bias_costs_nothing(cell: Cell, case: Case) -> None:
    """where weight · x̂ and bias cancel, the output is as accurate as its terms."""
    cell.judge(case, "output")


@requirement(
    "NUM-05",
    level="numerics",
    source=BOUNDS,
    history=("forward", "eval", "forward"),
    shape=shapes("tiny", "different", "small"),
    value=values((*FAMILIES, MIXED), scales=WIDE, offsets=(0.0, 1.0, -10.0)),
    momentum=(1.0, 0.1),
    parameters=("identity", "huge", "random", "minute", ABSENT),
)
def test_no_scale_costs_accuracy(cell: Cell, case: Case) -> None:
    """within the range of the accumulation, no scale of data or weight reduces accuracy."""
    cell.judge(case, *VALUES)


@requirement(
    "NUM-06",
    level="numerics",
    source=f"{BOUNDS}; google/flax#1491",
    reaches=("constant channel",),
    history=("forward", "eval", "forward"),
    shape=shapes("tiny", "small"),
    value=values(
        ("constant", "gaussian", "two-valued", MIXED),
        scales=(0, -1.0, -0.95, -0.8, -0.6, 0.4, 0.45, 0.47),
        offsets=(0.0, 1.0),
    ),
    momentum=(1.0, 0.1),
    eps=TINY_EPS,
)
def test_finite_data_give_finite_results(cell: Cell, case: Case) -> None:
    """finite data whose squares stay in range give finite results, whatever eps is."""
    cell.judge(case, "numbers")


@requirement(
    "NUM-07",
    level="numerics",
    source="IEEE 754-2019",
    needs=("subnormals",),
    shape=shapes("tiny", "small"),
    value=values(
        ("ramp", "gaussian", "constant"), scales=(-1.0, -1.05, -0.98, -1.15), offsets=(0.0, 1.0)
    ),
    momentum=(1.0,),
    parameters=("minute", "identity"),
    eps=(1.0, 1e-5),
)
def test_subnormal_numbers_are_kept(cell: Cell, case: Case) -> None:
    """subnormal inputs, outputs and statistics are kept, and not flushed to zero."""
    cell.judge(case, *VALUES)


# Half-precision data have so few bits that ties are common. Squares of odd numbers all have the
# form 8 k + 1, so that ties to even go one way, and errors are biased without a mistake. For them,
# only the bound judges the last rounding: truncation exceeds it.
WITH_RANDOM_BITS = ("float32", "float64")


@requirement(
    "NUM-08",
    level="numerics",
    source="bn_spec.oracle.bias; TOSA conformance",
    needs=("unbiased",),
    effort=0.2,
    dtypes=WITH_RANDOM_BITS,
    shape=shapes("many channels"),
    value=values(("gaussian",), scales=(0,), offsets=(0.0, 1.0)),
    momentum=(1.0,),
    parameters=("random",),
    eps=(1e-5, 1e-3),
)
def test_errors_of_output_and_mean_are_unbiased(cell: Cell, case: Case) -> None:
    """the errors of output and running_mean are positive and negative equally often."""
    cell.judge(case, "output_bias", "running_mean_bias")


@requirement(
    "NUM-09",
    level="numerics",
    source="bn_spec.oracle.bias; TOSA conformance",
    needs=("unbiased",),
    effort=0.4,
    dtypes=WITH_RANDOM_BITS,
    shape=shapes("many channels of two values"),
    value=values(("gaussian",), scales=(0,), offsets=(0.0, 1.0)),
    momentum=(1.0,),
)
def test_errors_of_the_variance_are_unbiased(cell: Cell, case: Case) -> None:
    """the errors of running_var are positive and negative equally often."""
    cell.judge(case, "running_var_bias")


@requirement(
    "NUM-10",
    level="numerics",
    source=f"{BOUNDS}; ROCm/MIOpen#3900",
    reaches=(("n 257-4096", "n > 4096"),),
    effort=0.3,
    shape=shapes("long"),
    value=values(
        ("gaussian", "two-valued", "heavy-tailed", "small integers"),
        scales=(0, 10),
        offsets=OFFSETS,
    ),
    momentum=(1.0, 0.5),
)
def test_thousands_of_values_are_summed_as_claimed(cell: Cell, case: Case) -> None:
    """over thousands of values, errors grow no faster than the claimed summation allows."""
    cell.judge(case, *VALUES)


@requirement(
    "NUM-11",
    level="numerics",
    source=f"{BOUNDS}; pytorch/pytorch#126525",
    reaches=("n > 4096",),
    effort=0.01,
    deep=True,
    shape=shapes("beyond half"),
    value=values(("two-valued", "small integers", "gaussian"), scales=(0, 3), offsets=(0.0, 1.0)),
    momentum=(1.0,),
)
def test_more_values_than_half_precision_can_count_are_no_different(cell: Cell, case: Case) -> None:
    """results are right for more values per channel than float16 can count or sum."""
    cell.judge(case, *VALUES)


@requirement(
    "NUM-12",
    level="numerics",
    source="IEEE 754-2019; pytorch/pytorch#88805",
    history=("forward", "eval", "forward"),
    shape=shapes("tiny"),
)
def test_the_floating_point_mode_stays(cell: Cell, case: Case) -> None:
    """a call leaves the floating-point mode of the process as it found it."""
    cell.judge(case, "floating_point_mode")


@requirement(
    "NUM-13",
    level="numerics",
    source=f"{BOUNDS}; pytorch/pytorch#44350",
    needs=("overflow_safe",),
    history=("forward", "eval", "forward"),
    dtypes=(
        "float32",
        "float64",
        "mixed_bfloat16",
        "bfloat16",
    ),
    shape=shapes("tiny", "small"),
    value=values((*FAMILIES, MIXED), scales=BEYOND, offsets=(0.0, 1.0, -10.0)),
    momentum=(1.0, 0.1),
    parameters=(*PARAMETER_STYLES, "huge"),
)
def test_overflowing_squares_give_no_nan(cell: Cell, case: Case) -> None:
    """where squares of finite data overflow but sums of the data do not, no result is NaN."""
    cell.judge(case, "numbers")
