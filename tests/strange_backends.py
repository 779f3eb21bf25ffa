"""Backends with the faults that third parties have on a bad day; tests load them by path."""

import ctypes
import importlib.util
import itertools
import os
import signal
import time
from asyncio import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from bn_spec import Backend, Capabilities, Config, KnownFailure, Layer, State
from bn_spec.backend.adapters.reference_backend import Reference
from bn_spec.case.dtypes import Array
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
        self.known_failures = (
            KnownFailure("RUN-03", observable, "the biased variance is kept on purpose"),
        )

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
overclaiming = Overclaiming(
    "overclaiming", dtypes=("float32", "float64"), output_layout=True, grade="textbook"
)


# What a bad kernel does to the process that plays it: on two or more channels, so that there is
# something to shrink.


class Mute(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise SystemExit("no words")


class Lying(np.ndarray[Any, Any]):
    """An array that is another one to whoever asks."""

    dtype = property(lambda _: "float32")
    shape = property(lambda _: None)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise OSError("no array")

    copy = tobytes = view = __array__


def _raise(error: BaseException) -> Any:
    raise error


def _spin() -> None:
    while True:
        pass


def _hog() -> None:
    hoard: list[Any] = []
    while True:
        hoard.append(np.ones(2**22))


def _hog_in_c() -> None:
    c = ctypes.CDLL(None)
    c.malloc.restype = ctypes.c_void_p
    while True:
        ctypes.memset(c.malloc(ctypes.c_size_t(2**24)), 1, 2**24)


def _flood() -> None:
    for _ in range(20):
        os.write(1, b"words " * 10_000)
        os.write(2, b"words " * 10_000)


def _meddle() -> None:
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _write_everywhere() -> None:
    for descriptor in range(3, 64):
        with suppress(OSError):
            os.write(descriptor, b"\x00{junk}" * 100)


def _close_everything() -> None:
    os.closerange(0, 64)


class Hostile(Renamed):
    """A reference whose forward of several channels calls ``before`` and returns ``instead``."""

    def __init__(self, name: str, before: Any = None, instead: Any = None) -> None:
        super().__init__(name)
        self.before, self.instead = before, instead

    def layer(self, config: Config, state: State | None) -> Layer:
        layer: Any = super().layer(config, state)
        original = layer.forward

        def forward(x: Array) -> Any:
            wide = x.ndim > 1 and x.shape[1] > 1
            if wide and self.before:
                self.before()
            y = original(x)
            return self.instead(y) if wide and self.instead else y

        layer.forward = forward
        hostile: Layer = layer
        return hostile


HOSTILE = {
    backend.name: backend
    for backend in (
        Hostile("segfaults", lambda: ctypes.string_at(0)),
        Hostile("aborts", os.abort),
        Hostile("exits", lambda: os._exit(3)),
        Hostile("kills", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        Hostile("hangs", lambda: time.sleep(3600)),
        Hostile("spins", _spin),
        Hostile("hogs", _hog),
        Hostile("hogs-in-c", _hog_in_c),
        Hostile("interrupts", lambda: _raise(KeyboardInterrupt())),
        Hostile("leaves", lambda: _raise(SystemExit("done"))),
        Hostile("cancels", lambda: _raise(CancelledError())),
        Hostile("stops", lambda: _raise(GeneratorExit())),
        Hostile("mute", lambda: _raise(Mute())),
        Hostile("unprintable", lambda: _raise(RuntimeError("\udcff\x00"))),
        Hostile("verbose", lambda: _raise(RuntimeError("words " * 10**6))),
        Hostile("gives-nothing", instead=lambda _: None),
        Hostile("gives-text", instead=lambda _: "y"),
        Hostile("gives-objects", instead=lambda y: y.astype(object)),
        Hostile("gives-a-generator", instead=lambda y: (row for row in y)),
        Hostile("gives-another-shape", instead=lambda y: y[..., None]),
        Hostile("gives-a-liar", instead=lambda y: y.view(Lying)),
        Hostile("gives-the-world", instead=lambda y: np.broadcast_to(y, (2**40, *y.shape))),
        Hostile("wavers", instead=lambda y: y + 1 + next(_calls) % 7),
        Hostile("writes-everywhere", _write_everywhere),
        Hostile("closes-everything", _close_everything),
        Hostile("floods", _flood),
        Hostile("meddles", _meddle),
        Hostile("forks", os.fork),
    )
}
globals().update({name.replace("-", "_"): backend for name, backend in HOSTILE.items()})
