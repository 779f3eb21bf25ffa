"""The pages of options and exit codes: they say what the parsers say."""

from pathlib import Path

import pytest

from scripts.options import PAGES, commands, paragraphs


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_says_what_the_parsers_say(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path](), "run: python scripts/options.py"


def test_every_option_of_every_command_is_explained() -> None:
    for name, command in commands():
        assert paragraphs(command)[0], name
        for option in command.params:
            assert option.param_type_name == "argument" or getattr(option, "help", None), (
                name,
                option.name,
            )
