import logging

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MambaConfig, MistralConfig

from buddygpt.evaluation import harness
from buddygpt.evaluation.harness import Scorer
from buddygpt.evaluation.kept import Kept
from buddygpt.events import Caution, Progress, silent
from buddygpt.recipe.errors import BuddyError

CONTEXT = 256
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
HEADS = {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "max_position_embeddings": CONTEXT}
NATIVE = {
    "llama": LlamaConfig(**SIZES, **HEADS),
    "mistral, which keeps a window": MistralConfig(**SIZES, **HEADS, sliding_window=24),
    "gemma2, which caps its logits": Gemma2Config(**SIZES, **HEADS, final_logit_softcapping=3.0),
    "mamba, which has no keys": MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3),
}


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


@pytest.fixture(params=["gqa", "mla", *NATIVE])
def model(request, make, tokenizer):
    if request.param == "gqa":
        return make().eval()
    if request.param == "mla":
        return make(
            attention_kind="mla",
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=8,
        ).eval()
    config = NATIVE[request.param]
    config.vocab_size, config.pad_token_id = len(tokenizer), 0
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float().eval()


def ask(kind, arguments):
    return [Instance(kind, {}, pair, number) for number, pair in enumerate(arguments)]


def questions():
    """Examples before every question, one answer of one token and others of several, nothing before, spaces between."""
    shots = "\n\n".join(f"题：{n}加{n}？\n答案： {'ABCD'[n % 4]}" for n in range(9))
    asked = [f"{shots}\n\n题：{'水' * n}？\n答案：" for n in (1, 9, 3)] + ["另外的题：", "末尾有空格  ", ""]
    return [(context, answer) for context in asked for answer in (" A", " B", "水和火", "水和土", "A")]


def differences(found, expected):
    assert [top for _, top in found] == [top for _, top in expected]
    return max(abs(a - b) for (a, _), (b, _) in zip(found, expected, strict=True))


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_log_likelihoods_are_those_of_lm_eval(model, tokenizer, rows):
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=CONTEXT)
    expected = reference.loglikelihood(ask("loglikelihood", questions()), disable_tqdm=True)
    scorer = Scorer(model, tokenizer, CONTEXT, rows, Kept(), silent)
    assert differences(scorer.loglikelihood(ask("loglikelihood", questions())), expected) < 1e-4


def test_ids_are_those_of_lm_eval(make, tokenizer):
    model = make().eval()
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=CONTEXT)
    scorer = Scorer(model, tokenizer, CONTEXT, None, Kept(), silent)
    asked = [pair for pair in questions() if pair[0]]
    assert scorer.encoded(asked) == [reference._encode_pair(*pair) for pair in asked]


def test_what_all_begin_with_is_read_once(make, tokenizer):
    model = make().eval()
    scorer = Scorer(model, tokenizer, CONTEXT, None, Kept(), silent)
    read = []
    model.model.register_forward_pre_hook(
        lambda _, args, told: read.append(told["input_ids"].numel()), with_kwargs=True
    )
    scorer.loglikelihood(ask("loglikelihood", questions()[:15]))
    longest = len(tokenizer(questions()[5][0])["input_ids"])
    assert sum(read) < 2.5 * longest < 3 * longest


def test_a_part_that_cannot_be_trusted_is_not_used(model, tokenizer):
    kind = model.config.model_type
    scorer = Scorer(model, tokenizer, CONTEXT, None, Kept(), silent)
    assert (scorer.parts, scorer.shares) == {"gemma2": (False, False), "mamba": (True, False)}.get(kind, (True, True))


def test_prompts_longer_than_the_context_lose_their_beginning_as_in_lm_eval(make, tokenizer):
    model = make().eval()
    asked = [("水火木金土" * 80 + str(n), "答") for n in range(3)]
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64)
    scorer = Scorer(model, tokenizer, 64, None, Kept(), silent)
    expected = reference.loglikelihood(ask("loglikelihood", asked), disable_tqdm=True)
    assert differences(scorer.loglikelihood(ask("loglikelihood", asked)), expected) < 1e-4


def test_whole_texts_are_judged_as_by_lm_eval(model, tokenizer):
    asked = [("春眠不觉晓，处处闻啼鸟。" * 20,), ("短",)]
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64)
    scorer = Scorer(model, tokenizer, 64, None, Kept(), silent)
    expected = reference.loglikelihood_rolling(ask("loglikelihood_rolling", asked), disable_tqdm=True)
    found = scorer.loglikelihood_rolling(ask("loglikelihood_rolling", asked))
    assert found == pytest.approx(expected, rel=1e-5)


def test_answers_are_written_as_by_lm_eval(make, tokenizer):
    model = make().eval()
    settings = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    asked = [("春眠" * n, settings) for n in (1, 5, 3)] + [("处处", settings | {"max_gen_toks": 4})]
    expected = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=CONTEXT).generate_until(
        ask("generate_until", asked), disable_tqdm=True
    )
    for rows in (None, 1, 2):
        scorer = Scorer(model, tokenizer, CONTEXT, rows, Kept(), silent)
        assert scorer.generate_until(ask("generate_until", asked)) == expected


def test_answers_too_many_for_memory_are_written_by_fewer_and_none_is_lost(make, tokenizer, monkeypatch):
    model = make().eval()
    settings = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    asked = [("春眠" * n, settings) for n in range(1, 8)]
    expected = Scorer(model, tokenizer, CONTEXT, 1, Kept(), silent).generate_until(ask("generate_until", asked))
    write = HFLM._model_generate

    def scarce(self, context, *args, **told):
        if len(context) > 1:
            raise torch.OutOfMemoryError("no more")
        return write(self, context, *args, **told)

    monkeypatch.setattr(HFLM, "_model_generate", scarce)
    events = []
    found = Scorer(model, tokenizer, CONTEXT, 3, Kept(), events.append).generate_until(ask("generate_until", asked))
    assert found == expected
    assert [e.text for e in events if isinstance(e, Caution)] == [
        "memory does not suffice for 3 answers at once; 1 from now on"
    ]


def test_only_what_is_missing_is_asked_again(make, tokenizer, tmp_path):
    model = make().eval()
    file = tmp_path / "answers.jsonl"
    first = Scorer(model, tokenizer, CONTEXT, None, Kept(file), silent)
    half = first.loglikelihood(ask("loglikelihood", questions()[:15]))
    events = []
    again = Scorer(model, tokenizer, CONTEXT, None, Kept(file), events.append)
    whole = again.loglikelihood(ask("loglikelihood", questions()))
    assert whole[:15] == half
    assert max(e.done for e in events if isinstance(e, Progress)) == len(set(questions())) - 15


def test_progress_comes_to_its_end(make, tokenizer):
    events = []
    scorer = Scorer(make().eval(), tokenizer, CONTEXT, 2, Kept(), events.append)
    scorer.loglikelihood(ask("loglikelihood", questions()))
    told = [e for e in events if isinstance(e, Progress)]
    assert [e.done for e in told] == sorted(e.done for e in told)
    assert told[-1].done == told[-1].total == len(set(questions()))


def test_a_batch_too_large_for_memory_is_halved_and_that_is_said(make, tokenizer, monkeypatch):
    events = []
    scorer = Scorer(make().eval(), tokenizer, CONTEXT, None, Kept(), events.append)
    expected = scorer.loglikelihood(ask("loglikelihood", questions()))
    sums, most = Scorer._sums, 3

    def scarce(self, rows, *told):
        if len(rows) > most:
            raise torch.OutOfMemoryError("no more")
        return sums(self, rows, *told)

    monkeypatch.setattr(Scorer, "_sums", scarce)
    again = Scorer(scorer.model, tokenizer, CONTEXT, 16, Kept(), events.append)
    assert differences(again.loglikelihood(ask("loglikelihood", questions())), expected) < 1e-4
    told = [e.text for e in events if isinstance(e, Caution)]
    assert told and all("memory does not suffice" in text for text in told)


def test_weights_that_are_no_numbers_are_refused(make, tokenizer):
    model = make().eval()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(BuddyError, match="no numbers"):
        Scorer(model, tokenizer, CONTEXT, None, Kept(), silent).loglikelihood(ask("loglikelihood", [("a", "b")]))


def test_a_tokenizer_without_an_end_is_refused(make, tokenizer, monkeypatch):
    monkeypatch.setitem(tokenizer._special_tokens_map, "eos_token", None)
    with pytest.raises(BuddyError, match="no end-of-text"):
        Scorer(make().eval(), tokenizer, CONTEXT, None, Kept(), silent)


def test_logits_of_many_positions_are_made_part_by_part(make, tokenizer, monkeypatch):
    model = make().eval()
    expected = Scorer(model, tokenizer, CONTEXT, None, Kept(), silent).loglikelihood(ask("loglikelihood", questions()))
    monkeypatch.setattr(harness, "LOGIT_BYTES", 1)
    found = Scorer(model, tokenizer, CONTEXT, None, Kept(), silent).loglikelihood(ask("loglikelihood", questions()))
    assert differences(found, expected) < 1e-4
