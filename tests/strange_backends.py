"""Backends that behave as third parties' do on a bad day; tests load them by path."""

import importlib.util
import itertools
import os
from dataclasses import replace
from typing import Any

from bn_spec import Backend, Capabilities, Config, KnownFailure, Layer, State
from bn_spec.backends.reference import Reference
from bn_spec.dtypes import Array
from bn_spec.specimens import SPECIMENS


class Renamed(Reference):
    """The reference under another name."""

    def __init__(self, name: str, **claims: Any) -> None:
        self.name = name
        self.capabilities = replace(Capabilities(), **claims)


class Excused(Renamed):
    """A backend with a fault that it declares, or declares without having."""

    def __init__(self, name: str, inner: Backend, observable: str) -> None:
        super().__init__(name)
        self.inner = inner
        self.known_failures = (KnownFailure("RUN-03", observable, "the biased variance is kept on purpose"),)

    def layer(self, config: Config, state: State | None) -> Layer:
        return self.inner.layer(config, state)


class Wrapped:
    """A reference layer whose forward is preceded by a call."""

    def __init__(self, layer: Any, before: Any) -> None:
        self.layer = layer
        self.before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def forward(self, x: Array) -> Array:
        self.before(x)
        y: Array = self.layer.forward(x)
        return y


class Interrupted(Renamed):
    """A reference whose forward first does something else."""

    def __init__(self, name: str, before: Any) -> None:
        super().__init__(name)
        self.before = before

    def layer(self, config: Config, state: State | None) -> Layer:
        return Wrapped(super().layer(config, state), self.before)


def _expect_one_thread(_: Array) -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise RuntimeError("OMP_NUM_THREADS is not 1")
    if importlib.util.find_spec("torch"):
        import torch

        if torch.get_num_threads() != 1:
            raise RuntimeError(f"torch uses {torch.get_num_threads()} threads")


_calls = itertools.count()


def _spoil_once(x: Array) -> None:
    if next(_calls) == 5:
        x += 1


excused = Excused("excused", SPECIMENS["runvar-bias"], "running_var")
excused_for_another = Excused("excused-for-another", SPECIMENS["runvar-bias"], "running_mean")
excused_in_vain = Excused("excused-in-vain", Reference(), "running_var")
no_inference = Renamed("no-inference", inference=False)
crashing = Interrupted("crashing", lambda _: os._exit(3))
single_threaded = Interrupted("single-threaded", _expect_one_thread)
unsteady = Interrupted("unsteady", _spoil_once)


def _refuse(_: Array) -> None:
    raise NotImplementedError("no kernel yet\nbut soon")


class Stateless(Renamed):
    """A reference whose state cannot be read."""

    def layer(self, config: Config, state: State | None) -> Layer:
        layer: Layer = Wrapped(super().layer(config, state), lambda _: None)
        layer.state = dict  # type: ignore[method-assign, assignment]
        return layer


class Overclaiming(Renamed):
    """A kernel that claims what it does not do, and builds no layer without parameters."""

    def layer(self, config: Config, state: State | None) -> Layer:
        if not config.affine:
            raise TypeError("a layer has parameters")
        layer: Layer = SPECIMENS["two-pass-sequential"].layer(config, state)
        return layer


unfinished = Interrupted("unfinished", _refuse)
stateless = Stateless("stateless")
overclaiming = Overclaiming("overclaiming", dtypes=("float32", "float64"), output_layout=True, grade="textbook")
