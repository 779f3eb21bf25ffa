"""The exceptions of bn-spec, all in one tree.

::

    BnSpecError
    ├── ConfigError           a config, a state or an option that no BatchNorm2d can have
    ├── CaseFileError         a case file that cannot be read
    └── BackendError          a backend that cannot be used
        ├── UnknownBackend    nothing is registered or importable under that name
        ├── BrokenBackend     found, but importing it or reading its declaration failed
        └── UnavailableBackend  found and sound, but this machine lacks what it needs

A disagreement between an implementation and the specification is not an error of this library: it
is a :class:`bn_spec.judge.finding.Finding`, raised inside a property as
:class:`bn_spec.suite.cell.Violation`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class BnSpecError(Exception):
    """Base of every exception that bn-spec raises on purpose."""


class ConfigError(BnSpecError, ValueError):
    """A config, a state or an option that no BatchNorm2d can have."""


class CaseFileError(BnSpecError, ValueError):
    """A case file that cannot be read: damaged, of another version, or not a case file."""


class RunFileError(BnSpecError, ValueError):
    """A record of a run that cannot be read: damaged, of another version, or none."""


class BackendError(BnSpecError):
    """A backend that cannot be used."""


class UnknownBackend(BackendError):
    """Nothing is registered or importable under that name."""


class BrokenBackend(BackendError):
    """The backend was found, but importing it or reading its declaration failed."""


class UnavailableBackend(BackendError):
    """The backend is sound, but this machine lacks what it needs (a framework, a device)."""


def allowed(kind: str, received: object, names: Iterable[str]) -> str:
    """Return the sentence that says what was received, what is allowed, and the nearest match."""
    known = sorted(names)
    sentence = f"{kind} {received!r} is not known; known: {', '.join(known) or 'none'}"
    nearest = get_close_matches(str(received), known, n=1, cutoff=0.4)
    return f"{sentence}; did you mean {nearest[0]!r}?" if nearest else sentence
