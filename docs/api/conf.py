"""Sphinx configuration of the API pages: one page per package of bn_spec, written from docstrings.

The adapters are left out, because each imports a framework that need not be installed.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

from bn_spec import __version__

project = "bn-spec"
copyright = "the authors of bn-spec"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.apidoc"]
apidoc_modules = [
    {
        "path": "../../bn_spec",
        "destination": "generated",
        "exclude_patterns": ["../../bn_spec/backend/adapters"],
        "module_first": True,
    }
]
# Packages offer names of their modules a second time; each is documented in its own module.
autodoc_default_options = {"ignore-module-all": True}
# Type checkers judge annotations; here they would only fail for names of third parties.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
html_theme = "alabaster"

nitpicky = True
THIRD_PARTY = ("abc", "collections", "enum", "numpy", "pathlib", "pytest", "random", "typing")
"""Packages whose classes are bases or aliases; their documentation is not linked."""
nitpick_ignore_regex = [
    ("py:.*", rf"(?:{'|'.join(THIRD_PARTY)})\..*"),
    ("py:obj", r"bn_spec\..*\.[A-Z]"),  # type variables, of which Sphinx makes no entry
]


SECTIONS = Config(napoleon_use_ivar=True, napoleon_attr_annotations=False)
"""How sections are shown: attributes as a list of fields, since autodoc has an entry for each."""


def read_sections(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Turn the sections of a docstring (Args, Attributes, Raises) into fields.

    A name in Raises must exist.

    The extension napoleon would do the same to constants, whose first words before a colon it
    takes for a type.
    """
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, SECTIONS, app, what, name, thing, options).lines()


def escape_bars(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Escape the bars of absolute values, which are substitutions in reStructuredText."""
    for number, line in enumerate(lines):
        if not line.startswith("    "):  # a literal block is shown as it is
            lines[number] = re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line)


def setup(app: Sphinx) -> None:
    """Connect the hooks; Sphinx calls this."""
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-process-docstring", escape_bars)
