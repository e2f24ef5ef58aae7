"""Published scores: every one with a source and a setting, nothing that is another test."""

import re

import pytest
from pydantic import ValidationError

from buddygpt.report.published import Published, published
from buddygpt.report.scores import COLUMNS

KNOWN = {*COLUMNS, "mmlu_continuation", "hellaswag", "piqa", "arc_easy"}


def test_every_row_has_scores_of_known_tasks_a_source_and_a_setting():
    rows = published(KNOWN)
    assert len(rows) > 20 and all(row.scores.keys() <= KNOWN for row in rows)
    assert all(row.source and row.setting and row.parameters for row in rows)
    assert len({(row.model, row.source) for row in rows}) == len(rows)
    for row in rows:
        for score in row.scores.values():
            ends = [float(end) for end in re.findall(r"[\d.]+", score)]
            assert ends == sorted(ends)


def test_what_the_origin_reports_and_what_is_recalled():
    rows = {row.model: row for row in published(COLUMNS)}
    assert rows["buddygpt-0.3b-base"].scores == {"cmmlu": "25.6", "mmlu": "25.04", "ceval": "28.6"}
    assert rows["minimind-3 (exam)"].scores["ceval"] == "30.98" and not rows["minimind-3 (exam)"].recalled
    assert set(rows["Qwen3-0.6B, thinking"].recalled) == set(rows["Qwen3-0.6B, thinking"].scores)


def test_only_rows_with_a_task_that_is_asked():
    assert {row.model for row in published(["math-500"])} == {
        "Qwen3-0.6B, thinking", "Qwen3-0.6B, not thinking", "MobileLLM-R1-140M",
    }  # fmt: skip
    assert published([]) == published(["unheard of"]) == []


@pytest.mark.parametrize("score", ["", "123.4", "-1", "25 %", "25.00-25.03", "n/a"])
def test_what_is_no_score_is_refused(score):
    with pytest.raises(ValidationError):
        Published(model="m", parameters="1M", scores={"mmlu": score}, setting="s", source="s")


def test_a_recalled_task_must_have_a_score():
    with pytest.raises(ValidationError, match="recalled"):
        Published(model="m", parameters="1M", scores={"mmlu": "25"}, setting="s", source="s", recalled=["gpqa"])
