"""Sound and faulty implementations that test the suite.

Each is a backend: ``bn-spec run bn_spec.specimens:runvar_bias`` shows how the suite reports a
fault.
"""

from bn_spec.specimens import backward as _backward  # noqa: F401 - registers its specimens
from bn_spec.specimens import dialects as _dialects  # noqa: F401 - registers its specimens
from bn_spec.specimens import faulty as _faulty  # noqa: F401 - registers its specimens
from bn_spec.specimens import inaccurate as _inaccurate  # noqa: F401 - registers its specimens
from bn_spec.specimens import sound as _sound  # noqa: F401 - registers its specimens
from bn_spec.specimens import unfriendly as _unfriendly  # noqa: F401 - registers its specimens
from bn_spec.specimens.catalogue import SPECIMENS, Specimen

__all__ = ["SPECIMENS", "Specimen"]


def __getattr__(name: str) -> Specimen:
    """Return the specimen of this name, with ``_`` for ``-``, as import strings write it."""
    try:
        return SPECIMENS[name.replace("_", "-")]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute or specimen {name!r}") from None


def __dir__() -> list[str]:
    return [*__all__, *(name.replace("-", "_") for name in SPECIMENS)]
