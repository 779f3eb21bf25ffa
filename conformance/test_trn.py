"""TRN: training forward."""

from bn_spec.case.script import Case
from bn_spec.strategies import (
    ABSENT,
    PARAMETERS,
    RUNNING_STYLES,
    among,
    beside_loud_neighbours,
    values,
)
from bn_spec.suite.cell import Cell, conforms
from bn_spec.suite.regions import decades

AFFINE = tuple(PARAMETERS)


@conforms("TRN-01", parameters=(ABSENT,))
def test_output_is_normalised_by_the_biased_batch_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms("TRN-02", parameters=AFFINE)
def test_weight_scales_and_bias_shifts_each_channel(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms("TRN-03", running=("large", "absurd", "small"))
def test_output_does_not_depend_on_running_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms(
    "TRN-04",
    change=beside_loud_neighbours,
    value=values(scales=(0, -3, -10), offsets=(0.0, 1.0, -10.0)),
)
def test_a_channel_does_not_hear_its_neighbours(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms("TRN-05")
def test_output_has_the_shape_and_dtype_of_the_input(cell: Cell, case: Case) -> None:
    cell.judge(case, "output_form")


@conforms("TRN-06", running=(*RUNNING_STYLES, ABSENT))
def test_input_and_parameters_are_left_alone(cell: Cell, case: Case) -> None:
    cell.judge(case, "handed", "weight", "bias")


@conforms(
    "TRN-07",
    reaches=("n = 2",),
    shape=among(
        [shape for c in range(1, 6) for shape in ((2, c, 1, 1), (1, c, 1, 2), (1, c, 2, 1))]
    ),
)
def test_two_values_per_channel_suffice(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "running_mean", "running_var")


@conforms("TRN-08", running=(ABSENT,))
def test_output_is_normalised_by_batch_statistics_without_tracking(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms(
    "TRN-09",
    reaches=(decades("var/eps", -8, -2), decades("var/eps", 2, 8)),
    value=values(scales=(0, -3, -10, -20, -40, 3, 10), offsets=(0.0, 1.0)),
)
def test_eps_stands_inside_the_root(cell: Cell, case: Case) -> None:
    cell.judge(case, "output")


@conforms(
    "TRN-10",
    reaches=("n = 1",),
    history=("forward", "forward"),
    shape=among([(1, c, 1, 1) for c in (1, 2, 3, 5, 65)]),
    least=1,
)
def test_a_single_value_per_channel_gives_the_bias(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "running_mean", "running_var")
