"""Stores the cases on which backends failed in a folder, so that they can be replayed."""

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
"""Default folder for the record and the cases of a run, in the folder where it was started."""

SUFFIX = ".npz"
"""File extension of stored cases."""

_LENGTH = 10
"""Number of hexadecimal digits of an id."""


@dataclass(frozen=True)
class Stored:
    """A stored case, with the failure that it shows.

    Attributes:
        id: Hash of the case, the requirement and the backend.
        case: The case.
        requirement: Id of the violated requirement.
        backend: Name of the backend.
        address: The name by which the backend can be loaded.
        content: Content of the file.
        observable: Name of the observable that was wrong.

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
        """Whether the backend is registered.

        If not, to load it is to run the code that the file names.
        """
        return self.address in registered()

    @staticmethod
    def of(finding: Finding, case: Case) -> Stored | None:
        """Return the stored case of a finding, or None if the case is too large.

        Args:
            finding: The finding.
            case: The case that the property received, from which it may have made that of the
                finding.

        """
        identity = {"requirement": finding.requirement.id, "backend": finding.backend}
        seen = finding.discrepancy
        details = {
            "address": finding.address,
            "observable": seen.observable,
            "expected": seen.expected,
            "got": seen.got,
            "bn-spec": __version__,
        }
        try:
            # The details may change between runs that find the same failure; the id must not.
            name = sha256(encoded(case, identity)).hexdigest()[:_LENGTH]
            content = encoded(case, identity | details)
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
        """Return the stored case of a file.

        Args:
            name: Name of the file, without its extension.
            case: The case in the file.
            about: The notes in the file.

        Raises:
            CaseFileError: The notes lack the requirement, the backend or its address.

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
        """Return the path of the case with this id."""
        return self.folder / f"{name}{SUFFIX}"

    def put(self, name: str, content: bytes) -> None:
        """Write the file of a case, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path(name)) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Delete a case, if it exists."""
        self.path(name).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Stored]:
        """Yield the stored cases; damaged files are ignored."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                yield self.load(path)
            except CaseFileError:
                continue

    def load(self, path: Path) -> Stored:
        """Read a case file and its notes.

        Raises:
            FileNotFoundError: There is no such file.
            CaseFileError: It is not a case file, or its notes are incomplete.

        """
        return Stored.read(path.stem, *load_with_notes(path))

    def find(self, text: str) -> Path:
        """Return the path of a case.

        Args:
            text: The path of a file, an id, or the first letters of an id.

        Raises:
            CaseFileError: There is no such case, or there are several.

        """
        path = Path(text)
        if path.is_file():
            return path
        known = sorted(path.stem for path in self.folder.glob(f"*{SUFFIX}"))
        found = [name for name in known if text and name.startswith(text)]
        if len(found) == 1:
            return self.path(found[0])
        which = f"kept there: {', '.join(known) or 'none'}"
        if found:
            which = f"several: {', '.join(found)}"
        raise CaseFileError(
            f"{text!r} is not a file, nor the id of one case in {self.folder} ({which})"
        )
