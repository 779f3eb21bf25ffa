"""What can be judged of a step, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bn_spec.case.config import STATE_FIELDS
from bn_spec.case.laws import LAWS
from bn_spec.case.steps import DOUBLE_GRADIENTS, FOLDED, GRADIENTS
from bn_spec.errors import ConfigError, allowed
from bn_spec.judge.observables import answers as values
from bn_spec.judge.observables import followed_laws as laws
from bn_spec.judge.observables import gradients, memory, specials
from bn_spec.judge.observables.judged_step import Observable, Step
from bn_spec.oracle.expectation import OUTPUT, PARTS, RESULTS, STATISTICS

__all__ = ["NEEDS", "OBSERVABLES", "OF_MEMORY", "Observable", "Step", "observable_named"]

_STATISTICS = ("running_mean", "running_var")
_RESULTS = (*GRADIENTS, *DOUBLE_GRADIENTS, *FOLDED)

OBSERVABLES: Mapping[str, Observable] = MappingProxyType(
    {
        "output": values.output,
        "output_form": values.output_form,
        "handed": memory.handed,
        "overrun": memory.overrun,
        "shared": memory.shared,
        "kept": memory.kept,
        "refusal": values.refusal,
        "repetition": values.repetition,
        "checkpoint": values.checkpoint,
        "state_form": values.state_form,
        "running_var_sign": values.running_var_sign,
        "running_statistics_kept": values.statistics_kept,
        "floating_point_mode": values.mode,
        "numbers": values.numbers,
        "special": specials.special,
        "elsewhere": specials.elsewhere,
        "output_bias": values.output_bias,
        **{f"{name}_bias": values.statistic_bias(name) for name in _STATISTICS},
        "gradient_form": gradients.gradient_form,
        "folded_form": gradients.folded_form,
        "gradient_layout": memory.layout("gradient_layout", "grad_input"),
        "output_layout": memory.layout("output_layout", "output"),
        "gradient_linearity": gradients.gradient_linearity,
        "gradient_sums": gradients.gradient_sums,
        **{name: values.tensor(name) for name in STATE_FIELDS},
        **{name: gradients.result(name) for name in _RESULTS},
        **{name: laws.law(name) for name in LAWS},
        **laws.OTHERS,
    }
)
"""What can be judged of a step, by name."""

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("output", "output_bias", *LAWS, *laws.OTHERS), (OUTPUT,)),
        **{
            name: (STATISTICS,)
            for statistic in _STATISTICS
            for name in (statistic, f"{statistic}_bias")
        },
        "running_statistics_kept": (STATISTICS,),
        **dict.fromkeys((*laws.OF_STATISTICS, "numbers"), PARTS),
        **dict.fromkeys(
            ("gradient_form", "gradient_linearity", "gradient_sums", *_RESULTS), (RESULTS,)
        ),
    }
)
"""The parts of an expectation that an observable looks at."""


OF_MEMORY = frozenset(("handed", "overrun", "shared", "kept"))
"""The observables for which a player has to look at memory."""


def observable_named(name: str) -> Observable:
    """Return the observable called ``name``; raise :class:`ConfigError` naming the nearest one otherwise."""
    try:
        return OBSERVABLES[name]
    except KeyError:
        raise ConfigError(allowed("observable", name, OBSERVABLES)) from None
