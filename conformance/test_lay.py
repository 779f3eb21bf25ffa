"""LAY: memory."""

from bn_spec.case.layouts import LAYOUTS
from bn_spec.case.script import Case
from bn_spec.strategies import KEEPING, shapes, values
from bn_spec.suite.cell import Cell, conforms

VALUES = ("output", "running_mean", "running_var")
BOTH = ("forward", "eval", "forward")
SHAPES = shapes("different", "small")
GAPPED = ("sliced", "cropped", "split")
GENTLE = values(scales=(0, 1, -1, 3), offsets=(0.0, 1.0, -10.0))


@conforms(
    "LAY-01",
    reaches=("channels_last", "permuted", "sliced", "cropped", "split"),
    history=BOTH,
    shape=SHAPES,
    layouts=("channels_last", "permuted", *GAPPED),
    value=GENTLE,
)
def test_memory_layouts_do_not_change_results(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "LAY-02",
    reaches=("expanded",),
    effort=0.5,
    history=BOTH,
    shape=SHAPES,
    layouts=("expanded",),
    value=GENTLE,
)
def test_expanded_inputs_are_as_if_written_out(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "LAY-03",
    reaches=("ambiguous",),
    effort=0.5,
    history=BOTH,
    shape=shapes("tiny", "small"),
    layouts=("ambiguous",),
    value=GENTLE,
)
def test_strides_of_axes_of_length_one_mean_nothing(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "LAY-04", effort=0.5, history=BOTH, shape=SHAPES, running=KEEPING, strided=True, value=GENTLE
)
def test_state_may_lie_in_memory_with_gaps(cell: Cell, case: Case) -> None:
    cell.judge(case, *VALUES)


@conforms(
    "LAY-05",
    effort=0.5,
    history=("forward", "record", "backward", "eval", "forward"),
    shape=SHAPES,
    layouts=(*GAPPED, "contiguous", "channels_last"),
    strided=True,
    value=GENTLE,
)
def test_nothing_is_written_around_tensors(cell: Cell, case: Case) -> None:
    cell.judge(case, "overrun")


@conforms(
    "LAY-06",
    effort=0.5,
    history=("forward", "record", "backward", "eval", "forward", "record", "backward"),
    shape=SHAPES,
    layouts=LAYOUTS,
    parameters=("identity", "absent", "random"),
    value=GENTLE,
)
def test_results_lie_in_memory_of_their_own(cell: Cell, case: Case) -> None:
    cell.judge(case, "shared")


@conforms(
    "LAY-07",
    effort=0.5,
    history=(
        "record",
        "backward",
        "forward of the same shape",
        "eval",
        "record",
        "backward",
        "forward",
    ),
    shape=SHAPES,
    value=GENTLE,
)
def test_what_was_returned_stays(cell: Cell, case: Case) -> None:
    cell.judge(case, "kept")


@conforms(
    "LAY-08",
    effort=0.5,
    history=BOTH,
    shape=SHAPES,
    layouts=("channels_last", "contiguous"),
    value=GENTLE,
)
def test_output_is_laid_out_like_the_input(cell: Cell, case: Case) -> None:
    cell.judge(case, "output_layout")
