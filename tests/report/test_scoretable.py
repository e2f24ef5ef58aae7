"""The same scores as Markdown for a model card and as lines for the terminal."""

import re
from dataclasses import replace

from buddygpt.report.scores import Measured
from buddygpt.report.scoretable import markdown_table, terminal_table
from tests.report.evaluation_data import evaluation
from tests.report.test_evaluation import one


def rows_of(markdown):
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in markdown.splitlines()
        if line[:1] == "|"
    ]


def test_markdown_has_the_pages_columns_and_one_row_a_model():
    rows = evaluation().rows
    head, rule, *body = rows_of(markdown_table(rows[::-1]))
    assert head[:9] == ["model", "cmmlu", "mmlu", "ceval", "gpqa", "ifeval", "aime24", "math-500", "livecodebench"]
    assert len(rule) == len(head) == len(body[0]) == len(body[1]) == 13
    assert [line[0] for line in body] == ["0.1b-chat (chat template but in bits_per_character)", "0.1b-base"]


def test_markdown_says_error_guessing_setting_and_notes():
    text = markdown_table([Measured("a|b <i>", [one(right=30, total=1000), one("aime24", 0, 30, 0.0)])])
    (_, _, row) = rows_of(text)
    assert row == [
        r"a\|b &lt;i>",
        "30.00<sup>1</sup> ± 9.21 (not above chance)",
        "0.00 (0.00–11.35) (not above chance)",
    ]
    assert "- cmmlu: acc, n = 100, 5-shot, chance 25\n" in text
    assert text.endswith("<sup>1</sup> 100 of 1,000 items asked.\n")


def test_what_was_not_asked_is_a_dash_and_nothing_gives_nothing():
    (_, _, first, second) = rows_of(markdown_table([Measured("a", [one()]), Measured("b", [one("mmlu")])]))
    assert first[2] == second[1] == "—"
    assert markdown_table([]) == markdown_table([Measured("a", [])]) == ""


def test_means_over_subjects_stand_in_markdown():
    (ceval,) = [score for score in evaluation().rows[0].scores if score.task == "ceval"]
    mean = f"{100 * sum(s.value for s in ceval.subjects.values()) / 52:.2f}"
    assert f"- ceval: acc, n = 1,352, 5-shot, chance 25, mean over subjects {mean}\n" in markdown_table(
        [Measured("a", [ceval])]
    )


def test_markdown_names_the_few_tasks_with_or_without_template():
    three = [one(), one("mmlu"), one("ceval")]
    assert "| a (chat template) |" in markdown_table([Measured("a", [replace(s, chat=True) for s in three])])
    assert "| a |" in markdown_table([Measured("a", three)])
    some = [replace(three[0], chat=True), *three[1:]]
    assert "| a (chat template in cmmlu) |" in markdown_table([Measured("a", some)])


def test_terminal_has_a_line_for_each_score():
    rows = evaluation().rows
    table = terminal_table(rows, "scores")
    assert table.columns[:3] == ("task", "model", "score") and len(table.rows) == 24
    assert [row[:2] for row in table.rows[:3]] == [
        ("cmmlu", "0.1b-base"),
        ("cmmlu", "0.1b-chat"),
        ("mmlu", "0.1b-base"),
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)
    alone = terminal_table([Measured("m", [one(right=30, cut=2, chat=True)])])
    assert alone.columns == ("task", "score", "2 s.e.", "n", "shots", "")
    words = "not above chance; chat template; 2 prompts cut to fit the context"
    assert alone.rows == (("cmmlu", "30.00", "± 9.21", "100", "5-shot", words),)
