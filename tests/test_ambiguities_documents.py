"""The snippets, links and tables of docs/ambiguities.md and docs/findings.md are right."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from typing import Any

import pytest

from bn_spec.specification.requirement import REQUIREMENTS
from bn_spec.suite.chapters import load_suite
from tests.process import REPOSITORY

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from tests.torch_modules import MENDED  # noqa: E402 - it needs torch

load_suite()  # it registers the requirements

DOCUMENT, FINDINGS = (
    (REPOSITORY / "docs" / name).read_text() for name in ("ambiguities.md", "findings.md")
)


def snippets(text: str) -> list[Any]:
    """Return the Python of a document, each piece named by the heading above it."""
    heading, found = "", []
    for title, code in re.findall(r"^#+ ([^\n]+)$|```python\n(.*?)```", text, re.M | re.S):
        heading = title or heading
        if code:
            found.append(pytest.param(code, id=heading))
    assert len(found) == text.count("```python") > 0
    return found


def printed(code: str) -> list[str]:
    """Run code and return the lines that it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue().splitlines()


@pytest.mark.parametrize("code", snippets(DOCUMENT))
def test_a_snippet_about_an_ambiguity_prints_what_its_comments_say(code: str) -> None:
    said = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
    assert len(said) == code.count("print(")
    assert printed(code) == said


# torch deprecates modules of its own that it imports when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("code", snippets(FINDINGS))
def test_a_finding_runs_and_prints_what_is_said_to_be_wrong(code: str) -> None:
    if "compile(" in code and not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    if "cuda" in code and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    lines = printed(code)
    for wrong in re.findall(r"wrong: (.+)$", code, re.M):
        expected = wrong.replace("infinite", "inf")
        assert any(expected in line for line in lines), MENDED


def table() -> list[tuple[str, ...]]:
    """Return the rows of the table of questions: anchor, what torch does, what is demanded."""
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| (.+?) \| (.+?) \|$", DOCUMENT, re.M)
    return [(anchor, torch_does, demanded) for _, anchor, torch_does, demanded in rows]


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_section_has_a_row_in_the_table_and_every_row_a_section() -> None:
    headings = re.findall(r"^## (.+)$", DOCUMENT, re.M)
    anchors = [anchor_of(heading) for heading in headings if heading != "torch.compile"]
    assert [anchor for anchor, *_ in table()] == anchors


def test_links_between_the_documents_lead_somewhere() -> None:
    for text in (DOCUMENT, FINDINGS):
        for name, anchor in re.findall(r"\]\(([\w./-]*?\.(?:md|py))?(?:#([\w-]+))?\)", text):
            target = (REPOSITORY / "docs" / name).read_text() if name else text
            anchors = {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", target, re.M)}
            assert not anchor or anchor in anchors, anchor


@pytest.mark.parametrize(("anchor", "_", "demanded"), table())
def test_a_question_names_requirements_unless_nothing_is_demanded(
    anchor: str, _: str, demanded: str
) -> None:
    ids = re.findall(r"[A-Z]{3}-\d\d", demanded)
    assert set(ids) <= REQUIREMENTS.keys()
    assert bool(ids) == demanded.startswith(("one answer", "one of several"))
    assert ids or demanded.startswith("nothing"), anchor


def test_every_requirement_that_the_documents_name_exists() -> None:
    assert set(re.findall(r"\b[A-Z]{3}-\d\d\b", DOCUMENT + FINDINGS)) <= REQUIREMENTS.keys()
