"""TRN: training forward.

What a forward in training mode returns. TRN-01 needs the claim ``affine_off``, TRN-03
``normalises_by_batch``, TRN-08 ``tracking_off`` and TRN-10 ``answers_single_values``; all others
are judged for every backend.
"""

from bn_spec.case.script import Case
from bn_spec.specification.requirement import PAPER, TORCH
from bn_spec.strategies import (
    ABSENT,
    PARAMETERS,
    RUNNING_STYLES,
    among,
    beside_loud_neighbours,
    values,
)
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement
from bn_spec.suite.regions import decades

AFFINE = tuple(PARAMETERS)


@requirement(
    "TRN-01",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("affine_off",),
    convention="training_output",
    parameters=(ABSENT,),
)
def test_output_is_normalised_by_the_biased_batch_statistics(cell: Cell, case: Case) -> None:
    """the training output is (x − mean) / sqrt(var + eps) with the biased variance of the batch."""
    cell.judge(case, "output")


@requirement(
    "TRN-02",
    level="training",
    source=f"{PAPER}, algorithm 1",
    parameters=AFFINE,
)
def test_weight_scales_and_bias_shifts_each_channel(cell: Cell, case: Case) -> None:
    """weight scales and bias shifts each channel of the output, also where the weight is zero or
    negative.
    """
    cell.judge(case, "output")


@requirement(
    "TRN-03",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("normalises_by_batch",),
    running=("large", "absurd", "small"),
)
def test_output_does_not_depend_on_running_statistics(cell: Cell, case: Case) -> None:
    """the training output does not depend on the running statistics."""
    cell.judge(case, "output")


@requirement(
    "TRN-04",
    level="training",
    source=f"{PAPER}, section 3.2",
    change=beside_loud_neighbours,
    value=values(scales=(0, -3, -10), offsets=(0.0, 1.0, -10.0)),
)
def test_a_channel_does_not_hear_its_neighbours(cell: Cell, case: Case) -> None:
    """the training output of a channel does not depend on the data of other channels."""
    cell.judge(case, "output")


@requirement(
    "TRN-05",
    level="core",
    source=TORCH,
)
def test_output_has_the_shape_and_dtype_of_the_input(cell: Cell, case: Case) -> None:
    """the output has the shape and the dtype of the input."""
    cell.judge(case, "output_form")


@requirement(
    "TRN-06",
    level="core",
    source=TORCH,
    convention="mixed_output",
    running=(*RUNNING_STYLES, ABSENT),
)
def test_input_and_parameters_are_left_alone(cell: Cell, case: Case) -> None:
    """a training forward leaves its input, weight and bias bitwise unchanged."""
    cell.judge(case, "handed", "weight", "bias")


@requirement(
    "TRN-07",
    level="training",
    source=TORCH,
    reaches=("n = 2",),
    shape=among(
        [shape for c in range(1, 6) for shape in ((2, c, 1, 1), (1, c, 1, 2), (1, c, 2, 1))]
    ),
)
def test_two_values_per_channel_suffice(cell: Cell, case: Case) -> None:
    """two values per channel are enough for a training forward, in one sample or in two."""
    cell.judge(case, "output", "running_mean", "running_var")


@requirement(
    "TRN-08",
    level="training",
    source=TORCH,
    needs=("tracking_off",),
    running=(ABSENT,),
)
def test_output_is_normalised_by_batch_statistics_without_tracking(cell: Cell, case: Case) -> None:
    """with track_running_stats=False too, the training output is normalised by the statistics of
    the batch.
    """
    cell.judge(case, "output")


@requirement(
    "TRN-09",
    level="training",
    source=f"{PAPER}, algorithm 1",
    reaches=(decades("var/eps", -8, -2), decades("var/eps", 2, 8)),
    value=values(scales=(0, -3, -10, -20, -40, 3, 10), offsets=(0.0, 1.0)),
)
def test_eps_stands_inside_the_root(cell: Cell, case: Case) -> None:
    """eps is added to the variance inside the root, whatever its size relative to the variance."""
    cell.judge(case, "output")


@requirement(
    "TRN-10",
    level="training",
    source=f"{PAPER}, algorithm 1",
    needs=("answers_single_values",),
    reaches=("n = 1",),
    history=("forward", "forward"),
    shape=among([(1, c, 1, 1) for c in (1, 2, 3, 5, 65)]),
    least=1,
)
def test_a_single_value_per_channel_gives_the_bias(cell: Cell, case: Case) -> None:
    """in a dialect that accepts a single value per channel, the output is the bias, and the
    variance is 0.
    """
    cell.judge(case, "output", "running_mean", "running_var")
