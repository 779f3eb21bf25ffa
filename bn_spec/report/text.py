"""Text that comes from a backend or a file, made safe to show.

Nothing in it can move the cursor of a terminal, change the direction of writing, or hide.
"""

from __future__ import annotations

TAB = "    "

LONGEST = 20_000
"""Longest text of a finding or a case in a report, in characters."""


def shown(text: str) -> str:
    r"""Return a text with escapes in place of unprintable characters; line breaks stay.

    Control characters (ANSI escapes among them), marks that change the direction of writing, and
    halves of surrogate pairs become Python's escapes, as in ``\x1b``.
    """
    lines = text.replace("\r\n", "\n").replace("\t", TAB)
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in lines)


def cut(text: str) -> str:
    """Return a text as :func:`shown` does, cut to :data:`LONGEST` characters."""
    own = shown(text)
    if len(own) <= LONGEST:
        return own
    return f"{own[:LONGEST]}\n… {len(own) - LONGEST:,} characters more"


def in_a_line(text: str) -> str:
    """Return a text as :func:`shown` does, in one line."""
    return " ".join(shown(text).split())


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
