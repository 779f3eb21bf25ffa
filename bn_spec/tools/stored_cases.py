"""The cases on which backends failed, kept in a folder, so that they can be played again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bn_spec import __version__
from bn_spec.backend.registry import registered
from bn_spec.case.npz import encoded, load_with_notes
from bn_spec.case.script import Case
from bn_spec.case.whole_files import written_whole
from bn_spec.errors import CaseFileError
from bn_spec.judge.finding import Finding

FOLDER = ".bn_spec"
"""Where a run leaves what it found, in the folder where it was started, unless another is asked for."""

SUFFIX = ".npz"
_LENGTH = 10


@dataclass(frozen=True)
class Stored:
    """A case that is kept: its id, and the requirement that a backend violated by it.

    ``content`` is that of its file; ``address`` is the name under which the backend can be loaded.
    ``observable`` is what was not as expected.
    """

    id: str
    case: Case
    requirement: str
    backend: str
    address: str
    content: bytes = b""
    observable: str = ""

    @property
    def is_registered(self) -> bool:
        """Whether its backend is one that somebody installed, so that loading it runs nothing that the file names."""
        return self.address in registered()

    @staticmethod
    def of(finding: Finding, case: Case) -> Stored | None:
        """Return what is to be kept of a finding: the case that the property was given, unless it is too large."""
        what = {"requirement": finding.requirement.id, "backend": finding.backend}
        seen = finding.discrepancy
        found = {
            "observable": seen.observable,
            "expected": seen.expected,
            "got": seen.got,
            "bn-spec": __version__,
        }
        try:
            name = sha256(encoded(case, what)).hexdigest()[:_LENGTH]
            content = encoded(case, what | {"address": finding.address} | found)
        except CaseFileError:
            return None
        return Stored(
            name,
            case,
            finding.requirement.id,
            finding.backend,
            finding.address,
            content,
            seen.observable,
        )

    @staticmethod
    def read(name: str, case: Case, about: dict[str, str]) -> Stored:
        """Return what a file holds.

        Raises:
            CaseFileError: it does not say of whom it is.

        """
        try:
            of = about["requirement"], about["backend"], about["address"]
            return Stored(name, case, *of, observable=about.get("observable", ""))
        except KeyError as error:
            raise CaseFileError(
                f"it names no {error.args[0]}; allowed: a file that a run wrote"
            ) from None


@dataclass(frozen=True)
class Store:
    """A folder of stored cases; it need not exist."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return where the case of an id is kept."""
        return self.folder / f"{name}{SUFFIX}"

    def put(self, name: str, content: bytes) -> None:
        """Keep a case, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path(name)) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Let a case go."""
        self.path(name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Stored]:
        """Yield all that can be read; what is damaged is nobody's case."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                yield self.load(path)
            except CaseFileError:
                continue

    def load(self, path: Path) -> Stored:
        """Read a case file with what is said about it.

        Raises:
            FileNotFoundError: there is no such file.
            CaseFileError: it is no case file, or does not say of whom it is.

        """
        return Stored.read(path.stem, *load_with_notes(path))

    def find(self, text: str) -> Path:
        """Return the path of the case that ``text`` names: a file, or the first letters of an id.

        Raises:
            CaseFileError: there is none, or there are several.

        """
        if (path := Path(text)).is_file():
            return path
        known = sorted(path.stem for path in self.folder.glob(f"*{SUFFIX}"))
        found = [name for name in known if text and name.startswith(text)]
        if len(found) == 1:
            return self.path(found[0])
        which = (
            f"several: {', '.join(found)}" if found else f"kept there: {', '.join(known) or 'none'}"
        )
        raise CaseFileError(
            f"{text!r} is no file, nor the id of one case in {self.folder} ({which})"
        )
