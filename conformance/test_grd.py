"""GRD: gradients.

What a backward returns in training and in eval mode, with which accuracy, and that it changes
nothing; and the second derivatives. All requirements need the claim ``gradients``, many also
``inference``; second derivatives need ``double_backward``.
"""

from itertools import combinations

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.script import Case
from bn_spec.case.steps import DIFFERENTIABLE, Backward
from bn_spec.specification.requirement import BOUNDS, PAPER, TORCH
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
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement
from bn_spec.suite.regions import decades

GRADIENTS = ("grad_input", "grad_weight", "grad_bias")
SECOND = ("double_dy", "double_input", "double_weight")
ONE = ("forward with gradients", "backward")
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


@requirement(
    "GRD-01",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    history=ONE,
)
def test_dx_in_training_goes_through_mean_and_variance(cell: Cell, case: Case) -> None:
    """in training, the gradient of the input is weight (dy − mean(dy) − x̂ mean(dy x̂)) / sqrt(var
    + eps).
    """
    cell.judge(case, "grad_input")


@requirement(
    "GRD-02",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    history=ONE,
    parameters=AFFINE,
)
def test_dweight_in_training_is_the_sum_of_dy_times_the_normalised_input(
    cell: Cell, case: Case
) -> None:
    """in training, the gradient of the weight is the sum of dy x̂ over each channel."""
    cell.judge(case, "grad_weight")


@requirement(
    "GRD-03",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    history=ONE,
    parameters=AFFINE,
)
def test_dbias_in_training_is_the_sum_of_dy(cell: Cell, case: Case) -> None:
    """in training, the gradient of the bias is the sum of dy over each channel."""
    cell.judge(case, "grad_bias")


@requirement(
    "GRD-04",
    level="gradients",
    source=f"{TORCH}; soumith/cudnn.torch#244",
    needs=(
        "gradients",
        "inference",
    ),
    effort=0.5,
    history=("eval", *ONE),
    least=1,
)
def test_gradients_in_eval_take_the_running_statistics_as_given(cell: Cell, case: Case) -> None:
    """in eval mode, dx is weight dy / sqrt(running_var + eps), and dweight is the sum of dy x̂,
    with x̂ from the running statistics.
    """
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-05",
    level="gradients",
    source=TORCH,
    needs=("gradients",),
    effort=0.5,
    history=ONE,
    parameters=AFFINE,
    wrt=SUBSETS,
)
def test_gradients_have_the_form_of_their_tensors(cell: Cell, case: Case) -> None:
    """each gradient has the shape and dtype of its tensor."""
    cell.judge(case, "gradient_form")


@requirement(
    "GRD-06",
    level="gradients",
    source=f"{TORCH}; apache/mxnet#1061",
    needs=(
        "gradients",
        "affine_off",
    ),
    effort=0.5,
    history=ONE,
    parameters=(ABSENT,),
)
def test_without_affine_only_the_input_has_a_gradient(cell: Cell, case: Case) -> None:
    """with affine=False, the weight counts as 1, and parameters have no gradient."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-07",
    level="gradients",
    source=f"{TORCH}; Oneflow-Inc/oneflow#5665",
    needs=(
        "gradients",
        "tracking_off",
        "inference",
    ),
    effort=0.5,
    history=(*ONE, "eval", *ONE),
    shape=SMALL,
    running=(ABSENT,),
)
def test_without_tracking_the_statistics_of_the_batch_are_differentiated(
    cell: Cell, case: Case
) -> None:
    """with track_running_stats=False, gradients flow through batch statistics in eval mode too."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-08",
    level="gradients",
    source="torch.autograd; PaddlePaddle/Paddle#47634",
    needs=("gradients",),
    effort=0.5,
    history=(*ONE, "repeat the step"),
    wrt=SUBSETS,
)
def test_each_subset_of_gradients_is_as_if_all_were_asked(cell: Cell, case: Case) -> None:
    """any subset of input, weight and bias can require a gradient; the others get none."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-09",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    effort=0.5,
    history=("forward with gradients", "backward of zeros"),
    value=GENTLE,
)
def test_no_gradient_comes_of_none(cell: Cell, case: Case) -> None:
    """a dy of zeros gives gradients of zeros."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-10",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    effort=0.5,
    history=("forward with gradients", "backward", "backward", "backward of the sum"),
    shape=SMALL,
    gradient=EXACT,
    value=GENTLE,
)
def test_gradients_add_up(cell: Cell, case: Case) -> None:
    """gradients are linear in dy."""
    cell.judge(case, "gradient_linearity")


@requirement(
    "GRD-11",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    effort=0.5,
    history=ONE,
    value=GENTLE,
    eps=(1e-5, 1.0, 100.0, 1e-3),
)
def test_dx_sums_to_zero(cell: Cell, case: Case) -> None:
    """in training, dx sums to 0 over each channel, and dx x̂ to weight s³ eps times the sum of dy
    x̂, with s = 1 / sqrt(var + eps).
    """
    cell.judge(case, "gradient_sums")


@requirement(
    "GRD-12",
    level="gradients",
    source=f"{PAPER}, section 3",
    needs=("gradients",),
    effort=0.5,
    history=ONE,
    parameters=("loud", "distinct", "random"),
)
def test_the_bias_has_no_part_in_gradients(cell: Cell, case: Case) -> None:
    """gradients do not depend on the bias."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-13",
    level="gradients",
    source="torch.autograd.grad; apache/mxnet#18492",
    needs=("gradients",),
    effort=0.5,
    history=(*ONE, "repeat the step"),
)
def test_a_second_backward_gives_the_same(cell: Cell, case: Case) -> None:
    """a second backward of the same forward gives the same gradients, not their sum."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-14",
    level="gradients",
    source="torch.autograd",
    needs=("gradients",),
    effort=0.5,
    history=(
        "forward with gradients",
        "forward with gradients",
        "backward",
        "backward of the first",
    ),
    shape=SMALL,
)
def test_each_backward_remembers_its_forward(cell: Cell, case: Case) -> None:
    """a backward uses the values of its own forward, also after another forward."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-15",
    level="gradients",
    source="torch.autograd",
    needs=(
        "gradients",
        "inference",
    ),
    effort=0.5,
    history=("eval", "forward with gradients", "train", "forward", "backward of the first"),
    shape=SMALL,
    momentum=MOVING,
    running=KEEPING,
)
def test_an_eval_backward_remembers_the_running_statistics(cell: Cell, case: Case) -> None:
    """the backward of an eval forward uses the running statistics of that forward, even if they
    have changed since.
    """
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-16",
    level="gradients",
    source="torch.autograd",
    needs=(
        "gradients",
        "inference",
    ),
    effort=0.5,
    history=(*ONE, "eval", *ONE),
    shape=SMALL,
)
def test_a_backward_changes_nothing(cell: Cell, case: Case) -> None:
    """a backward leaves input, dy, parameters, running statistics and counter bitwise unchanged."""
    cell.judge_steps(case, Backward, "handed", *STATE_FIELDS)


@requirement(
    "GRD-17",
    level="gradients",
    source=TORCH,
    needs=(
        "gradients",
        "inference",
    ),
    effort=0.5,
    history=("forward with gradients", "eval", "same input with gradients", "backward"),
    shape=SMALL,
    momentum=MOVING,
    running=KEEPING,
)
def test_running_statistics_are_constants(cell: Cell, case: Case) -> None:
    """no gradient flows through the running statistics."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-18",
    level="gradients",
    source="NVIDIA/apex#1768; ROCm/MIOpen#916",
    needs=("gradients",),
    reaches=(("C 65-256", "C 257-4096"), ("n 65-256", "n 257-4096")),
    history=ONE,
    shape=shapes("spatial edge", "channel edge"),
    value=values(scales=(0, 3, -10), offsets=(0.0, 1.0)),
    parameters=("random", "signs"),
    running=("random",),
    momentum=(0.1,),
)
def test_gradients_are_right_around_block_sizes(cell: Cell, case: Case) -> None:
    """gradients are right for sizes around the block sizes of kernels."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-19",
    level="gradients",
    source="torch.no_grad",
    needs=(
        "gradients",
        "inference",
    ),
    effort=0.5,
    history=("forward with gradients", "eval", "forward with gradients"),
)
def test_recording_changes_no_result(cell: Cell, case: Case) -> None:
    """a forward that records for a backward gives the same results as one that does not."""
    cell.judge(case, "output", "output_form", "running_mean", "running_var", "num_batches_tracked")


@requirement(
    "GRD-20",
    level="gradients",
    source=f"{BOUNDS}; apache/mxnet#960",
    needs=(
        "gradients",
        "inference",
    ),
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
    """finite data give finite gradients, also for constant channels and zero weights."""
    cell.judge(case, "numbers")


@requirement(
    "GRD-21",
    level="gradients",
    source="torch.nn.BatchNorm2d",
    needs=(
        "gradients",
        "inference",
    ),
    reaches=("channels_last", "permuted", "split"),
    history=(*ONE, "backward with stride 0", "eval", *ONE),
    shape=shapes("different", "small"),
    value=GENTLE,
)
def test_memory_layouts_do_not_change_gradients(cell: Cell, case: Case) -> None:
    """gradients do not depend on the memory layouts of input and dy."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-22",
    level="gradients",
    source="torch.autograd",
    needs=(
        "gradients",
        "gradient_layout",
        "inference",
    ),
    effort=0.5,
    history=(*ONE, "eval", *ONE),
    shape=shapes("different", "small"),
)
def test_dx_is_laid_out_like_the_input(cell: Cell, case: Case) -> None:
    """the gradient of the input has the memory order of the input, NCHW or NHWC."""
    cell.judge(case, "gradient_layout")


@requirement(
    "GRD-23",
    level="gradients",
    source=f"{PAPER}, section 3, differentiated; pytorch/pytorch#186779",
    needs=(
        "gradients",
        "double_backward",
    ),
    reaches=("DoubleBackward",),
    history=("forward with gradients", "double backward"),
    value=GENTLE,
)
def test_second_derivatives_in_training_are_those_of_the_formulas(cell: Cell, case: Case) -> None:
    """in training, the second derivatives are those of the formulas, with the shapes and dtypes of
    their tensors.
    """
    cell.judge(case, *SECOND, "gradient_form")


@requirement(
    "GRD-24",
    level="gradients",
    source=f"{TORCH}; pytorch/pytorch#2277",
    needs=(
        "gradients",
        "double_backward",
        "inference",
    ),
    reaches=("DoubleBackward",),
    history=("eval", "forward with gradients", "double backward"),
    value=GENTLE,
    least=1,
)
def test_second_derivatives_in_eval_hold_the_statistics_constant(cell: Cell, case: Case) -> None:
    """in eval mode, the second derivatives treat the running statistics as constants."""
    cell.judge(case, *SECOND, "gradient_form")


@requirement(
    "GRD-25",
    level="gradients",
    source=f"{BOUNDS}; pytorch/pytorch#175189",
    needs=("gradients",),
    effort=2.0,
    reaches=(decades("mean/σ", 2, 8),),
    history=ONE,
    shape=shapes("tiny", "powers of two", "small"),
    value=FAR,
    eps=(1e-5, 1e-12),
)
def test_data_far_from_zero_have_accurate_gradients(cell: Cell, case: Case) -> None:
    """gradients of data far from zero are as accurate as claimed."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-26",
    level="gradients",
    source=f"{BOUNDS}; tensorflow/tensorflow#118701",
    needs=("gradients",),
    reaches=(("n 257-4096", "n > 4096"),),
    effort=0.3,
    history=ONE,
    shape=shapes("long", "powers of two"),
    value=GENTLE,
)
def test_gradients_are_accurate_over_thousands_of_values(cell: Cell, case: Case) -> None:
    """gradients over thousands of values are as accurate as claimed."""
    cell.judge(case, *GRADIENTS)


@requirement(
    "GRD-27",
    level="gradients",
    source="torch.autograd; pytorch/pytorch#12013",
    needs=(
        "gradients",
        "empty_batch",
        "inference",
    ),
    effort=0.3,
    shape=SMALL,
    history=(
        "forward with gradients",
        "empty forward with gradients",
        "backward",
        "eval",
        "empty forward with gradients",
        "backward",
    ),
    wrt=SUBSETS,
)
def test_gradients_of_nothing_are_zero(cell: Cell, case: Case) -> None:
    """for a batch without samples or pixels, the gradient of the input is empty, and those of
    weight and bias are zeros.
    """
    cell.judge(case, *GRADIENTS, "gradient_form", *STATE_FIELDS)
