"""GRD: gradients."""

from itertools import combinations

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import DIFFERENTIABLE, Backward
from bn_spec.strategies import (
    ABSENT,
    BALANCED,
    FAMILIES,
    KEEPING,
    MIXED,
    PARAMETERS,
    gradients,
    shapes,
    values,
)
from bn_spec.suite.cell import Cell, conforms
from bn_spec.suite.regions import decades

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
SECOND = ("double_dy", "double_input", "double_weight")
ONE = ("record", "backward")
AFFINE = tuple(style for style in PARAMETERS if style not in ("huge", "minute"))
MOVING = (1.0, 0.5, 0.1)
SMALL = shapes("tiny", "different", "small")
SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(DIFFERENTIABLE, size))
EXACT = gradients(
    ("ramp", "small integers", "one-hot", BALANCED), scales=(0, 1, -1, 3), offsets=(0.0, 1.0)
)
GENTLE = values(scales=(0, 1, -1, 3, -3, 10, -10), offsets=(0.0, 1.0, -10.0))
FAR = values(
    (BALANCED, *FAMILIES, MIXED), scales=(0, 3, -10, 10), offsets=(1e4, 1e6, -1e3, 100.0, -10.0)
)


@conforms("GRD-01", history=ONE)
def test_dx_in_training_goes_through_mean_and_variance(cell: Cell, case: Case) -> None:
    cell.judge(case, "grad_input")


@conforms("GRD-02", history=ONE, parameters=AFFINE)
def test_dweight_in_training_is_the_sum_of_dy_times_the_normalised_input(
    cell: Cell, case: Case
) -> None:
    cell.judge(case, "grad_weight")


@conforms("GRD-03", history=ONE, parameters=AFFINE)
def test_dbias_in_training_is_the_sum_of_dy(cell: Cell, case: Case) -> None:
    cell.judge(case, "grad_bias")


@conforms("GRD-04", effort=0.5, history=("eval", *ONE), least=1)
def test_gradients_in_eval_take_the_running_statistics_as_given(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-05", effort=0.5, history=ONE, parameters=AFFINE, wrt=SUBSETS)
def test_gradients_have_the_form_of_their_tensors(cell: Cell, case: Case) -> None:
    cell.judge(case, "gradient_form")


@conforms("GRD-06", effort=0.5, history=ONE, parameters=(ABSENT,))
def test_without_affine_only_the_input_has_a_gradient(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-07", effort=0.5, history=(*ONE, "eval", *ONE), shape=SMALL, running=(ABSENT,))
def test_without_tracking_the_statistics_of_the_batch_are_differentiated(
    cell: Cell, case: Case
) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-08", effort=0.5, history=(*ONE, "again"), wrt=SUBSETS)
def test_each_subset_of_gradients_is_as_if_all_were_asked(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-09", effort=0.5, history=("record", "backward of zeros"), value=GENTLE)
def test_no_gradient_comes_of_none(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-10",
    effort=0.5,
    history=("record", "backward", "backward", "backward of the sum"),
    shape=SMALL,
    gradient=EXACT,
    value=GENTLE,
)
def test_gradients_add_up(cell: Cell, case: Case) -> None:
    cell.judge(case, "gradient_linearity")


@conforms("GRD-11", effort=0.5, history=ONE, value=GENTLE, eps=(1e-5, 1.0, 100.0, 1e-3))
def test_dx_sums_to_zero(cell: Cell, case: Case) -> None:
    cell.judge(case, "gradient_sums")


@conforms("GRD-12", effort=0.5, history=ONE, parameters=("loud", "distinct", "random"))
def test_the_bias_has_no_part_in_gradients(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-13", effort=0.5, history=(*ONE, "again"))
def test_a_second_backward_gives_the_same(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-14",
    effort=0.5,
    history=("record", "record", "backward", "backward of the first"),
    shape=SMALL,
)
def test_each_backward_remembers_its_forward(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-15",
    effort=0.5,
    history=("eval", "record", "train", "forward", "backward of the first"),
    shape=SMALL,
    momentum=MOVING,
    running=KEEPING,
)
def test_an_eval_backward_remembers_the_running_statistics(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-16", effort=0.5, history=(*ONE, "eval", *ONE), shape=SMALL)
def test_a_backward_changes_nothing(cell: Cell, case: Case) -> None:
    cell.judge_steps(case, Backward, "handed", *STATE_FIELDS)


@conforms(
    "GRD-17",
    effort=0.5,
    history=("record", "eval", "record again", "backward"),
    shape=SMALL,
    momentum=MOVING,
    running=KEEPING,
)
def test_running_statistics_are_constants(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-18",
    reaches=("C 65-256 or C 257-4096", "n 65-256 or n 257-4096"),
    history=ONE,
    shape=shapes("spatial edge", "channel edge"),
    value=values(scales=(0, 3, -10), offsets=(0.0, 1.0)),
    parameters=("random", "signs"),
    running=("random",),
    momentum=(0.1,),
)
def test_gradients_are_right_around_block_sizes(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-19", effort=0.5, history=("record", "eval", "record"))
def test_recording_changes_no_result(cell: Cell, case: Case) -> None:
    cell.judge(case, "output", "output_form", "running_mean", "running_var", "num_batches_tracked")


@conforms(
    "GRD-20",
    effort=0.5,
    reaches=("constant channel",),
    history=("eval", *ONE, "train", *ONE),
    shape=shapes("tiny", "small"),
    value=values(
        ("constant", "two-valued", "one-hot"), scales=(0, 10, -10, -20), offsets=(0.0, 1.0, 100.0)
    ),
    parameters=("signs", "identity", "random"),
    eps=(1e-5, 1e-12, 1e-20, 1.0),
)
def test_finite_data_give_finite_gradients(cell: Cell, case: Case) -> None:
    cell.judge(case, "numbers")


@conforms(
    "GRD-21",
    reaches=("channels_last", "permuted", "split"),
    history=(*ONE, "backward expanded", "eval", *ONE),
    shape=shapes("different", "small"),
    value=GENTLE,
)
def test_memory_layouts_do_not_change_gradients(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms("GRD-22", effort=0.5, history=(*ONE, "eval", *ONE), shape=shapes("different", "small"))
def test_dx_is_laid_out_like_the_input(cell: Cell, case: Case) -> None:
    cell.judge(case, "gradient_layout")


@conforms(
    "GRD-23", reaches=("DoubleBackward",), history=("record", "double backward"), value=GENTLE
)
def test_second_derivatives_in_training_are_those_of_the_formulas(cell: Cell, case: Case) -> None:
    cell.judge(case, *SECOND, "gradient_form")


@conforms(
    "GRD-24",
    reaches=("DoubleBackward",),
    history=("eval", "record", "double backward"),
    value=GENTLE,
    least=1,
)
def test_second_derivatives_in_eval_hold_the_statistics_constant(cell: Cell, case: Case) -> None:
    cell.judge(case, *SECOND, "gradient_form")


@conforms(
    "GRD-25",
    effort=2.0,
    reaches=(decades("mean/σ", 2, 8),),
    history=ONE,
    shape=shapes("tiny", "powers of two", "small"),
    value=FAR,
    eps=(1e-5, 1e-12),
)
def test_data_far_from_zero_have_accurate_gradients(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-26",
    reaches=("n 257-4096 or n > 4096",),
    effort=0.3,
    history=ONE,
    shape=shapes("long", "powers of two"),
    value=GENTLE,
)
def test_gradients_are_accurate_over_thousands_of_values(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS)


@conforms(
    "GRD-27",
    effort=0.3,
    shape=SMALL,
    history=("record", "record nothing", "backward", "eval", "record nothing", "backward"),
    wrt=SUBSETS,
)
def test_gradients_of_nothing_are_zero(cell: Cell, case: Case) -> None:
    cell.judge(case, *GRADIENTS, "gradient_form", *STATE_FIELDS)
