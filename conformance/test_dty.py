"""DTY: dtypes of the state."""

from bn_spec.case.script import Case
from bn_spec.strategies import histories, shapes, values
from bn_spec.suite.cell import Cell, conforms

SMALL = shapes("tiny", "small")


@conforms("DTY-01", effort=0.5, shape=SMALL, history=histories(most=8))
def test_the_state_keeps_its_form(cell: Cell, case: Case) -> None:
    cell.judge(case, "state_form")


@conforms(
    "DTY-02",
    dtypes=("mixed_float16",),
    shape=SMALL,
    value=values(
        ("ramp", "gaussian", "two-valued", "small integers"),
        scales=(9, 10, 11, 12),
        offsets=(0.0, 1.0),
    ),
    momentum=(1.0, 0.5, 0.1),
)
def test_statistics_beyond_half_precision_are_held(cell: Cell, case: Case) -> None:
    cell.judge(case, "running_mean", "running_var")


@conforms("DTY-03", effort=0.5, history=("eval", "forward"), least=1)
def test_the_eval_output_has_the_form_of_the_input(cell: Cell, case: Case) -> None:
    cell.judge(case, "output_form")
