"""The exceptions of bn-spec, all in one tree.

::

    BnSpecError
    ├── ConfigError             a value, a declaration or an option that is not allowed
    ├── CaseFileError           a case file that cannot be read
    ├── RunFileError            a run record that cannot be read
    ├── WireError               a damaged message between two processes
    ├── Vacuous                 a search that judged nothing
    └── BackendError            a backend that cannot be used
        ├── UnknownBackend      nothing is registered or importable under its name
        ├── BrokenBackend       it exists, but it cannot be loaded
        └── UnavailableBackend  this machine lacks a framework or a device that it needs

Two of them stand beside the code that raises them: :class:`bn_spec.play.wire.WireError` and
:class:`bn_spec.suite.search.Vacuous`.

A disagreement between an implementation and the specification is not an error of this library. It
is a :class:`bn_spec.judge.finding.Finding`, and a property raises it as
:class:`bn_spec.suite.cell.Violation`, which is an AssertionError.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class BnSpecError(Exception):
    """Base of every exception that bn-spec raises on purpose."""


class ConfigError(BnSpecError, ValueError):
    """A value, a declaration or an option that is not allowed.

    Examples are a negative ``eps``, a case that asks for a gradient of a forward that is not there,
    and a claim of an unknown dtype.
    """


class CaseFileError(BnSpecError, ValueError):
    """A case file that cannot be read: damaged, of another version, or not a case file."""


class RunFileError(BnSpecError, ValueError):
    """A run record that cannot be read: damaged, of another version, or not a run record."""


class BackendError(BnSpecError):
    """A backend that cannot be used."""


class UnknownBackend(BackendError):
    """A name under which no backend is registered or importable."""


class BrokenBackend(BackendError):
    """A backend that exists but cannot be loaded.

    Importing it failed or changed the floating-point mode of the process, or the object does not
    keep the contract of :class:`bn_spec.backend.contract.Backend`.
    """


class UnavailableBackend(BackendError):
    """A backend that needs a framework or a device that this machine lacks."""


def allowed(kind: str, received: object, names: Iterable[str]) -> str:
    """Return a message about an unknown name.

    Args:
        kind: What the name should be, as in ``"dtype"``.
        received: The unknown name.
        names: The known names.

    Returns:
        A sentence with the unknown name, the known names and, if there is one, the nearest of them.

    """
    known = sorted(names)
    sentence = f"{kind} {received!r} is not known; known: {', '.join(known) or 'none'}"
    nearest = get_close_matches(str(received), known, n=1, cutoff=0.4)
    if not nearest:
        return sentence
    return f"{sentence}; did you mean {nearest[0]!r}?"
