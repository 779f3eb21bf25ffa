"""DTY: dtypes of the state.

Which shapes and dtypes the tensors of the state and the output have, also where parameters and data
differ in dtype. Only DTY-03 needs a claim, ``inference``.
"""

from bn_spec.case.script import Case
from bn_spec.specification.requirement import TORCH
from bn_spec.strategies import histories, shapes, values
from bn_spec.suite.cell import Cell
from bn_spec.suite.property import requirement

SMALL = shapes("tiny", "small")


@requirement(
    "DTY-01",
    level="core",
    source=f"{TORCH}; tinygrad/tinygrad#6195",
    effort=0.5,
    shape=SMALL,
    history=histories(most=8),
)
def test_the_state_keeps_its_form(cell: Cell, case: Case) -> None:
    """every tensor of the state keeps its shape and dtype in every step."""
    cell.judge(case, "state_form")


@requirement(
    "DTY-02",
    level="core",
    source=f"{TORCH}; pytorch/pytorch#154887",
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
    """with parameters in float32, running_var holds values beyond the largest float16 number."""
    cell.judge(case, "running_mean", "running_var")


@requirement(
    "DTY-03",
    level="core",
    source=TORCH,
    needs=("inference",),
    convention="mixed_output",
    effort=0.5,
    history=("eval", "forward"),
    least=1,
)
def test_the_eval_output_has_the_form_of_the_input(cell: Cell, case: Case) -> None:
    """in eval mode, the output has the shape and the dtype of the input."""
    cell.judge(case, "output_form")
