"""The page of a report in a real browser: no errors, on a desk and a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bn_spec.report.merge import merged
from bn_spec.report.writers import write
from tests.browser import CHROMIUM, Page, browser
from tests.needs import missing
from tests.runs import SEVERAL, hostile, large, run

RUNS = {"several": run(*SEVERAL), "large": large(), "hostile": hostile()}

READABLE = """
(() => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!color.endsWith(", 0)") && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const worst = { contrast: 99 };
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script, .skip")) continue;
    const colors = [getComputedStyle(element).color, behind(element)];
    const [light, dark] = colors.map(luminance).sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    const text = element.outerHTML.slice(0, 200);
    if (contrast < worst.contrast) Object.assign(worst, { contrast, text });
  }
  return worst;
})()
"""
"""Script that returns the text with the lowest contrast, as WCAG measures it."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not CHROMIUM:
        missing("no chromium is installed (apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def written(name: str, folder: Path) -> Path:
    (path,) = write(merged({"run.json": RUNS[name]}), ("html",), folder)
    return path


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_renders(page: Page, tmp_path: Path, name: str, scheme: str, width: int) -> None:
    path, shown = written(name, tmp_path), RUNS[name]
    page.open(path, width, scheme)
    assert page.complaints == []
    assert page.requests == [path.as_uri()]
    assert page.value("document.title").endswith(" · bn-spec")
    assert page.value("document.querySelectorAll('.matrix tbody tr').length") == len(shown.backends)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert (
        page.value("getComputedStyle(document.body).backgroundColor")
        == {
            "light": "rgb(255, 255, 255)",
            "dark": "rgb(20, 23, 27)",
        }[scheme]
    )
    page.value("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert page.value("document.documentElement.scrollWidth") <= width
    found = page.value(READABLE)
    assert found["contrast"] >= 4.5, found


def test_the_page_is_printed_on_white_by_night_too(page: Page, tmp_path: Path) -> None:
    page.open(written("several", tmp_path), 800, "dark")
    page.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    found = page.value(READABLE)
    assert found["contrast"] >= 4.5, found


def test_a_cell_of_the_matrix_opens_its_requirements_from_the_keyboard(
    page: Page, tmp_path: Path
) -> None:
    page.open(written("several", tmp_path))
    page.value("document.querySelector('.matrix .failed a').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
            text="\r",
        )
    page.value("new Promise((done) => setTimeout(done, 50))")
    opened = page.value("[...document.querySelectorAll('.chapter[open]')].map((each) => each.id)")
    assert opened == ["r1-RUN"]
    assert page.value("document.activeElement.parentElement.id") == "r1-RUN"
    assert page.complaints == []


def test_the_pictures_are_drawn_where_the_numbers_say(page: Page, tmp_path: Path) -> None:
    page.open(written("large", tmp_path))
    assert page.value("document.querySelectorAll('.distribution').length") == 3 * 6
    assert page.value("document.querySelectorAll('.plot').length") == 3 * 6
    middle = "(({ left, width }) => left + width / 2)"
    limit = f"{middle}(document.querySelector('.limit').getBoundingClientRect())"
    ticks = "[...document.querySelectorAll('.ticks span')]"
    tick = f"{middle}({ticks}.find((each) => each.innerText === '1').getBoundingClientRect())"
    assert page.value(f"Math.abs({limit} - {tick})") < 2
