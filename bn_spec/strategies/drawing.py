"""Draws a case from a generator of random numbers, in about a dozen choices.

The order of the choices must not change: a seed stands for the same cases in all versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np

from bn_spec.backend.claims import Capabilities
from bn_spec.case.arrays import same_bits
from bn_spec.case.config import Config, State, initial_state
from bn_spec.case.dtypes import DType, dtype_named
from bn_spec.case.layouts import spread
from bn_spec.case.script import Case
from bn_spec.errors import ConfigError, allowed
from bn_spec.strategies.case_choices import ABSENT, Choices, narrowed
from bn_spec.strategies.histories import WORDS
from bn_spec.strategies.history_steps import History
from bn_spec.strategies.tensors import COUNTS, parameters, running_statistics
from bn_spec.strategies.values import SEEDS


def draw_case(random: Random, dtype: str, claims: Capabilities, choices: Choices) -> Case:
    """Draw a case in a dtype that needs only these claims.

    Raises:
        ConfigError: The history has an unknown word.

    """
    claimed = narrowed(choices, claims, choices.shape(random))
    choices = claimed.choices
    channels = claimed.first[1]
    affine_style = random.choice(choices.parameters)
    running_style = random.choice(choices.running)
    config = Config(
        num_features=channels,
        eps=random.choice(choices.eps),
        momentum=random.choice(choices.momentum),
        affine=affine_style != ABSENT,
        track_running_stats=running_style != ABSENT,
        dtype=dtype,
    )
    draw_state = partial(
        _draw_state, random, dtype_named(dtype), channels, affine_style, running_style
    )
    state = None if choices.built else draw_state()
    if state is not None and _same(state, initial_state(config)):
        # A case that loads nothing is simpler than one that loads the state of a new layer.
        state = None
    stored = state or initial_state(config)
    if choices.strided and claims.strided_state:
        state = stored.map(lambda a: spread(a, random.choice((2, 3, 1))) if a.ndim else a)
    history = History(random, config, stored, claimed, draw_state, claimed.first)
    for word in _words(random, choices):
        WORDS[word].add_to(history)
    return Case(config, state, tuple(history.steps))


def _words(random: Random, choices: Choices) -> Sequence[str]:
    words = choices.history
    if not isinstance(words, Sequence):
        words = words(random)
    for word in words:
        if word not in WORDS:
            raise ConfigError(allowed("step of a history", word, WORDS))
    return words


def _draw_state(
    random: Random, row: DType, channels: int, affine_style: str, running_style: str
) -> State:
    rng = np.random.default_rng(random.choice(SEEDS))
    tensors: dict[str, Any] = {}
    if affine_style != ABSENT:
        tensors |= parameters(affine_style, rng, channels, row)
    if running_style != ABSENT:
        tensors |= running_statistics(running_style, rng, channels, row)
        tensors["num_batches_tracked"] = np.array(random.choice(COUNTS), np.int64)
    return State(**tensors)


def _same(a: State, b: State) -> bool:
    for (_, ours), (_, theirs) in zip(a.items(), b.items(), strict=True):
        if ours is None or theirs is None:
            if ours is not theirs:
                return False
        elif not same_bits(ours, theirs):
            return False
    return True
