"""Text that others wrote, made fit to be shown: nothing in it can move a cursor, or hide."""

from __future__ import annotations

TAB = "    "

LONGEST = 20_000
"""Characters of a finding or a case that a report shows."""


def shown(text: str) -> str:
    r"""Return a text with escapes in place of what does not print, apart from line breaks.

    Control characters, ANSI escapes among them, marks that change the direction of writing, and
    halves of surrogate pairs become what Python writes for them, as in ``\x1b``.
    """
    lines = text.replace("\r\n", "\n").replace("\t", TAB)
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in lines)


def cut(text: str) -> str:
    """Return what :func:`shown` returns of a text, or of its beginning, where it is very long."""
    own = shown(text)
    return (
        own if len(own) <= LONGEST else f"{own[:LONGEST]}\n… {len(own) - LONGEST:,} characters more"
    )


def in_a_line(text: str) -> str:
    """Return what :func:`shown` returns, in one line."""
    return " ".join(shown(text).split())


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
