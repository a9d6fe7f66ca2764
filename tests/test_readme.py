"""The README says what the program does: settings, commands and files are compared with it."""

import re
from pathlib import Path

import pytest

from assistant.cli import main
from assistant.settings import SHIPPED_MODEL, Settings

REPOSITORY = Path(__file__).parent.parent
READMES = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"]


def default_of(name):
    """Write a default as the table does."""
    value = Settings.model_fields[name].default
    return {None: "unset", (): "none", str(SHIPPED_MODEL): "the shipped model"}.get(value, value)


def rows(path):
    """Return the rows of the settings table: variable, default, meaning."""
    found = re.findall(
        r"^\| `(ASSISTANT_\w+)` \| (.+?) \| (.+?) \|$", path.read_text("utf-8"), re.M
    )
    return {variable: (default.strip("`"), meaning) for variable, default, meaning in found}


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_setting_stands_in_the_table_with_its_default(path):
    table = {variable: default for variable, (default, _) in rows(path).items()}
    names = Settings.model_fields
    assert table == {f"ASSISTANT_{name.upper()}": str(default_of(name)) for name in names}


def test_the_english_table_has_the_settings_own_words():
    meanings = {variable: meaning for variable, (_, meaning) in rows(READMES[0]).items()}
    for name, field in Settings.model_fields.items():
        assert meanings[f"ASSISTANT_{name.upper()}"] == field.description


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_commands_flags_and_files_that_are_named_exist(path, capsys):
    text = path.read_text("utf-8")
    commands = set(
        re.findall(r"assistant (ask|search|build|serve|doctor|evaluate|calibrate)", text)
    )
    assert len(commands) == 7
    for command in commands:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = capsys.readouterr().out
        for line in re.findall(rf"assistant {command}\b[^#\n`]*", text):
            for flag in re.findall(r"--[a-z-]+", line):
                assert flag in known, (command, flag)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (REPOSITORY / target).exists(), target
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z]+)", text):
        assert re.search(rf"^[^#\n]*\b{target}\b[^=\n]*:", makefile, re.M), target


def test_both_readmes_give_the_same_figures():
    english, chinese = (path.read_text("utf-8") for path in READMES)
    figures = [re.findall(r"^\|.*\d.*\|$", text, re.M) for text in (english, chinese)]
    numbers = [[re.findall(r"\d+(?:[.,]\d+)*", row) for row in table] for table in figures]
    assert numbers[0] == numbers[1]
