"""LAY: memory.

That results do not depend on strides and gaps, and that a layer neither writes where it must not
nor returns memory that is not its own. Which layouts are drawn depends on the claim ``layouts``;
LAY-04 needs ``strided_state`` and LAY-08 ``output_layout``.
"""

from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.script import Case
from bn_spec.specification.requirement import TORCH
from bn_spec.strategies import KEEPING, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

VALUES = ("output", "running_mean", "running_var")
BOTH = ("forward", "eval", "forward")
SHAPES = shapes("different", "small")
GAPPED = ("sliced", "cropped", "split")
GENTLE = values(scales=(0, 1, -1, 3), offsets=(0.0, 1.0, -10.0))


@requirement(
    "LAY-01",
    level="layout",
    source=f"{TORCH}; pytorch/pytorch#63392",
    reaches=("channels_last", "permuted", "sliced", "cropped", "split"),
    history=BOTH,
    shape=SHAPES,
    layouts=("channels_last", "permuted", *GAPPED),
    value=GENTLE,
)
def test_memory_layouts_do_not_change_results(cell: Cell, case: Case) -> None:
    """output and running statistics do not depend on the memory layout of the input."""
    cell.judge(case, *VALUES)


@requirement(
    "LAY-02",
    level="layout",
    source="torch.Tensor.expand",
    reaches=("expanded",),
    effort=0.5,
    history=BOTH,
    shape=SHAPES,
    layouts=("expanded",),
    value=GENTLE,
)
def test_expanded_inputs_are_as_if_written_out(cell: Cell, case: Case) -> None:
    """an input with stride 0 gives the same results as if its elements were written out."""
    cell.judge(case, *VALUES)


@requirement(
    "LAY-03",
    level="layout",
    source=f"{TORCH}; pytorch/pytorch#64100",
    reaches=("ambiguous",),
    effort=0.5,
    history=BOTH,
    shape=shapes("tiny", "small"),
    layouts=("ambiguous",),
    value=GENTLE,
)
def test_strides_of_axes_of_length_one_mean_nothing(cell: Cell, case: Case) -> None:
    """the stride of an axis of length 1 has no effect."""
    cell.judge(case, *VALUES)


@requirement(
    "LAY-04",
    level="layout",
    source=f"{TORCH}; pytorch/pytorch#33867",
    needs=("strided_state",),
    effort=0.5,
    history=BOTH,
    shape=SHAPES,
    running=KEEPING,
    strided=True,
    value=GENTLE,
)
def test_state_may_lie_in_memory_with_gaps(cell: Cell, case: Case) -> None:
    """weight, bias and running statistics may have gaps between their elements in memory."""
    cell.judge(case, *VALUES)


@requirement(
    "LAY-05",
    level="layout",
    source=f"{TORCH}; flagos-ai/FlagGems#6332",
    effort=0.5,
    history=("forward", "forward with gradients", "backward", "eval", "forward"),
    shape=SHAPES,
    layouts=(*GAPPED, "contiguous", "channels_last"),
    strided=True,
    value=GENTLE,
)
def test_nothing_is_written_around_tensors(cell: Cell, case: Case) -> None:
    """no step writes to the memory around the elements of a tensor."""
    cell.judge(case, "overrun")


@requirement(
    "LAY-06",
    level="layout",
    source=TORCH,
    effort=0.5,
    history=(
        "forward",
        "forward with gradients",
        "backward",
        "eval",
        "forward",
        "forward with gradients",
        "backward",
    ),
    shape=SHAPES,
    layouts=LAYOUTS,
    parameters=("identity", "absent", "random"),
    value=GENTLE,
)
def test_results_lie_in_memory_of_their_own(cell: Cell, case: Case) -> None:
    """no result shares memory with an array that was handed over."""
    cell.judge(case, "shared")


@requirement(
    "LAY-07",
    level="layout",
    source=TORCH,
    effort=0.5,
    history=(
        "forward with gradients",
        "backward",
        "forward of the same shape",
        "eval",
        "forward with gradients",
        "backward",
        "forward",
    ),
    shape=SHAPES,
    value=GENTLE,
)
def test_what_was_returned_stays(cell: Cell, case: Case) -> None:
    """later calls do not change the arrays that a call has returned."""
    cell.judge(case, "kept")


@requirement(
    "LAY-08",
    level="layout",
    source=f"{TORCH}; pytorch/pytorch#107199",
    needs=("output_layout",),
    effort=0.5,
    history=BOTH,
    shape=SHAPES,
    layouts=("channels_last", "contiguous"),
    value=GENTLE,
)
def test_output_is_laid_out_like_the_input(cell: Cell, case: Case) -> None:
    """the output has the memory order of the input, NCHW or NHWC."""
    cell.judge(case, "output_layout")
