"""Cases: a config, an initial state and a list of steps with their arrays; data without behaviour.

``from bn_spec.case import *`` imports the names that a printed case uses.
"""

from bn_spec.case.config import Config, State
from bn_spec.case.script import Case, identical, negated, source
from bn_spec.case.source import array
from bn_spec.case.steps import (
    Backward,
    DoubleBackward,
    Eval,
    Fold,
    Forward,
    Load,
    ResetParameters,
    ResetRunningStats,
    Restore,
    Save,
    Set,
    Step,
    Train,
)

__all__ = [
    "Backward",
    "Case",
    "Config",
    "DoubleBackward",
    "Eval",
    "Fold",
    "Forward",
    "Load",
    "ResetParameters",
    "ResetRunningStats",
    "Restore",
    "Save",
    "Set",
    "State",
    "Step",
    "Train",
    "array",
    "identical",
    "negated",
    "source",
]
