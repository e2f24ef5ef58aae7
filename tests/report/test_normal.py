"""Is the loss normal: the band is where published runs end, and is silent where its sources are."""

import math
from dataclasses import replace

import pytest

from buddygpt.recipe.model import ModelSection
from buddygpt.report.normal import FITS, Size, band, checks, loss_fit, not_applicable
from buddygpt.report.page import Report, render
from tests.report.test_page import Reader, eval_row, step_row

PUBLISHED = {
    # parameters, without embedding and head, tokens, bits per byte, where it falls; sources in docs/report.md
    "llm.c GPT-2": (124e6, 85e6, 10e9, 3.2847 / math.log(2) / 4.67, "normal"),
    "the same loss from half of the tokens": (124e6, 85e6, 5e9, 3.2818 / math.log(2) / 4.67, "normal"),
    "the same loss from a twenty-fifth of the tokens": (124e6, 85e6, 0.4e9, 3.28 / math.log(2) / 4.67, "normal"),
    "nanochat d20": (561e6, 393e6, 11.2e9, 0.8156, "normal"),
    "nanochat d26": (1.68e9, 864e6, 7.58e9, 0.7465, "normal"),
    "the origin's 0.1b": (159e6, 42.5e6, 35e9, 3.5766 / math.log(2) / 4.0, "above"),
}


def size(total=159e6, body=42e6, epochs=1.0, width=2.5):
    return Size(int(total), int(body), 151_669, {"demo": epochs}, {"demo": width})


def judged(metrics, of=None, baselines=None):
    return {check.what[1]: check for check in checks(metrics, of or size(), baselines or {})}


def ended(bits, tokens=2e9):
    return [eval_row(100, "demo", bits) | {"tokens": tokens}]


def test_the_fits_are_those_of_their_papers():
    hoffmann, again = FITS
    assert loss_fit(hoffmann, 1e9, 20e9) == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 20e9**0.28)
    # Both say of Chinchilla itself, 70 B parameters and 1.4 T tokens, nearly the same.
    assert loss_fit(hoffmann, 70e9, 1.4e12) == pytest.approx(loss_fit(again, 70e9, 1.4e12), abs=0.04)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_runs_fall_where_the_documentation_says(name):
    total, body, tokens, bits, verdict = PUBLISHED[name]
    low, high = band(size(total, body), tokens)
    assert ("below" if bits < low else "above" if bits > high else "normal") == verdict


def test_the_band_falls_with_size_and_tokens_and_its_ends_never_cross():
    previous = (math.inf, math.inf)
    for tokens in (1e8, 1e9, 1e10, 1e11):
        low, high = band(size(), tokens)
        assert 0.4 < low < high < 3 and (low, high) < previous
        previous = low, high
    assert band(size(1e9, 0.9e9), 1e9) < band(size(1e8, 0.9e8), 1e9)


@pytest.mark.parametrize(("bits", "verdict"), [(1.2, "below"), (2.6, "normal"), (4.9, "above")])
def test_a_run_is_judged_in_bits_per_character_of_its_own_text(bits, verdict):
    low, high = (2.5 * end for end in band(size(), 2e9))
    check = judged(ended(bits))["for its size"]
    assert (
        check.verdict == verdict
        and f"{low:.2f}–{high:.2f}" in check.told[0]
        and f"{low:.2f}–{high:.2f}" in check.told[1]
    )
    assert bool(check.look[0]) == bool(check.look[1]) == (verdict != "normal")
    assert all(0 <= end <= 1 for end in check.scale) and check.scale[0] < check.scale[1]


@pytest.mark.parametrize(
    ("of", "tokens", "why"),
    [
        (size(), 258_048, "258k tokens are too few"),
        (size(13e6, 3e6), 2e9, "parameters"),
        (size(epochs=9.0), 2e9, "read 9.0 times"),
    ],
)
def test_where_the_fits_say_nothing_there_is_no_band_and_the_reason_is_told(of, tokens, why):
    assert why in not_applicable(of, tokens)[1]
    check = judged(ended(3.0, tokens), of)["for its size"]
    assert check.verdict == "open" and check.scale is None and check.told == not_applicable(of, tokens)
    assert not_applicable(size(), 2e9) is None


@pytest.mark.parametrize(("loss", "verdict"), [(11.93, "normal"), (14.0, "above"), (9.0, "below")])
def test_the_first_loss_is_that_of_a_model_that_knows_nothing(loss, verdict):
    assert judged([step_row(1, loss=loss)])["loss of the first step"].verdict == verdict


def test_a_run_is_compared_with_counting_and_with_its_own_training_text():
    metrics = [step_row(step, loss=3.0) for step in range(1, 101)] + ended(3.0, 100_000)
    found = judged(metrics, baselines={"demo": 2.5})
    assert found["against counting"].verdict == "above"
    assert found["held-out against training text"].verdict == "normal"
    assert judged(metrics, baselines={"demo": 3.5})["against counting"].verdict == "normal"
    worse = [*metrics[:-1], *ended(3.5, 100_000)]
    assert judged(worse)["held-out against training text"].verdict == "above"
    two = [*metrics, eval_row(100, "other", 3.0)]  # the training loss is of both, so that neither can be compared
    assert "held-out against training text" not in judged(two)


def test_figures_that_are_missing_or_not_finite_are_not_judged():
    assert checks([step_row(1, loss=None), eval_row(1, "demo", None)], size(), {"demo": 3.0}) == []
    assert checks([], size(), {}) == []
    assert "for its size" not in judged(ended(3.0), replace(size(), bytes_per_character={}))


def test_a_mixture_counts_only_what_a_token_passes():
    dense = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32}
    attention = {"kind": "gqa", "num_attention_heads": 4, "num_key_value_heads": 2}
    mixture = {
        "kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 1, "n_shared_experts": 1,
        "moe_intermediate_size": 24,
    }  # fmt: skip
    found = Size.of(ModelSection.model_validate(dense | {"attention": attention, "mlp": mixture}), {}, {})
    assert found.total - found.body == 64 * 32 + 2 * 3 * (3 * 32 * 24)  # embedding, and three experts of two layers


def test_the_page_says_where_the_band_comes_from_in_both_languages():
    report = Report("tiny", {}, ended(4.9), [], {}, "x", True, size=size())
    text = Reader(render(report)).all_text()
    for told in ("损失正常吗", "is the loss normal?", "偏高", "先看：学习率", "参考区间从何而来", "arXiv 2203.15556"):
        assert told in text
    assert text.count("2404.10102") == 2 and text.count("2403.00686") == 2
    assert "损失正常吗" not in Reader(render(replace(report, size=None))).all_text()
