"""`buddy data list`: the table of named data sets, and all of one."""

import re

import pytest
from ruamel.yaml import YAML

from buddygpt.cli.render import Renderer
from buddygpt.data.catalog import entries, find
from buddygpt.events import Table
from buddygpt.recipe.data import CatalogSource

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture
def on_terminal(monkeypatch):
    """Make the renderer believe in a terminal of some width."""

    def set_up(columns):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))

    return set_up


def plain(out):
    return CONTROL.sub("", out)


def test_on_a_pipe_each_data_set_is_one_line_with_both_ids(buddy):
    outcome = buddy("data", "list")
    assert outcome.code == 0 and outcome.err == ""
    lines = outcome.out.splitlines()
    for entry in entries():
        (line,) = [line for line in lines if line.split("  ")[0] == entry.name]
        for fact in (entry.huggingface, entry.modelscope, entry.shape, "+".join(entry.language), *entry.warnings):
            assert fact is None or fact in line
        assert (entry.licence or "none stated") in line


def test_one_kind_alone(buddy):
    told = {line.split("  ")[0] for line in buddy("data", "list", "--kind", "dpo").out.splitlines()}
    assert all((entry.name in told) == (entry.kind == "dpo") for entry in entries())
    assert buddy("data", "list", "--kind", "rlhf").code == 2


@pytest.mark.parametrize("columns", [60, 100, 140])
def test_on_a_terminal_no_line_is_wider_and_nothing_is_lost(buddy, on_terminal, columns):
    on_terminal(columns)
    out = plain(buddy("data", "list").out)
    table = out[: out.index("? recalled")]
    assert max(map(len, table.splitlines())) <= columns
    words = " ".join(table.split())
    for entry in entries():
        for fact in (entry.name, entry.huggingface, entry.modelscope, *entry.warnings):
            assert fact is None or fact in words


def test_recalled_facts_are_marked_and_seen_ones_are_not(buddy):
    out = buddy("data", "list").out
    for entry in entries():
        line = next(line for line in out.splitlines() if line.split("  ")[0] == entry.name)
        assert (f"{entry.licence}?" in line) == ("licence" in entry.unsure)


@pytest.mark.parametrize("name", [e.name for e in entries()] + ["chinese-instruct-lite/code(reasoning)"])
def test_one_data_set_is_shown_with_the_line_for_a_recipe(buddy, name):
    entry = find(name)
    outcome = buddy("data", "list", name)
    assert outcome.code == 0
    words = " ".join(outcome.out.split())
    for fact in (entry.huggingface, entry.modelscope, *entry.files, *entry.exclude, *entry.warnings, *entry.parts):
        assert fact is None or fact in words
    line = outcome.out.splitlines()[-1]
    (source,) = YAML(typ="safe", pure=True).load(line)
    assert find(CatalogSource.model_validate(source).dataset) == entry


def test_a_gated_set_says_where_to_accept_its_terms(buddy):
    assert "https://huggingface.co/datasets/BAAI/Infinity-Instruct" in buddy("data", "list", "infinity-instruct").out
    assert "gated" in buddy("data", "list", "--kind", "sft").out


def test_a_wrong_name_is_one_line(buddy):
    outcome = buddy("data", "list", "skypie")
    assert outcome.code == 2
    assert (
        outcome.err
        == "buddy: skypie: no data set of this name; did you mean 'skypile'?; `buddy data list` shows them all\n"
    )


WIDE = Table(
    "a title",
    ("name", "count", "words"),
    (("甲乙丙", "1,000", "山高水长 " * 12), ("ab", "20", "[bold]not markup[/bold]"), ("c", "3", "")),
)


def test_a_table_on_a_pipe_is_aligned_by_cells_and_not_folded(capfd):
    Renderer().emit(WIDE)
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["a title", "name    count  words"]
    assert lines[2] == "甲乙丙  1,000  " + ("山高水长 " * 12).strip()
    assert lines[3] == "ab         20  [bold]not markup[/bold]"
    assert lines[4] == "c           3"


def test_a_last_column_that_is_too_wide_wraps_below_itself(capfd, on_terminal):
    on_terminal(50)
    Renderer().emit(WIDE)
    lines = plain(capfd.readouterr().out).splitlines()
    assert lines[2] == "甲乙丙  1,000  " + "山高水长 " * 3 + "山高水长"
    assert lines[3] == " " * 15 + "山高水长 " * 3 + "山高水长"


def test_columns_that_do_not_fit_stand_below_their_row_by_name(capfd, on_terminal):
    on_terminal(24)
    Renderer().emit(WIDE)
    lines = plain(capfd.readouterr().out).splitlines()
    assert lines[1:4] == ["name    count", "甲乙丙  1,000", "    words 山高水长"]
    assert lines[-3:] == ["    words [bold]not", "    markup[/bold]", "c           3"]
