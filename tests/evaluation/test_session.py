"""One model through lm-eval: what it is asked, with how many examples, and that lm-eval alone finds the same."""

import logging
import math

import pytest
import torch
from lm_eval import evaluator, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.evaluation.bench import find
from buddygpt.evaluation.catalog import load_benchmark
from buddygpt.evaluation.harness import Scorer
from buddygpt.evaluation.kept import Kept
from buddygpt.evaluation.session import Settings, examine
from buddygpt.evaluation.wording import write_tasks
from buddygpt.events import Caution, Note, silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from tests.toy_benchmarks import EXAMPLES, SUBJECTS

TREES = [f"trees_{subject}" for subject in SUBJECTS]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Rows are written, and turned into tables by `datasets`, once."""
    return tmp_path_factory.mktemp("rows")


@pytest.fixture
def ready(toys, cache):
    return lambda name: find(load_benchmark(name), toys / "data", HubSection(), cache, silent)


@pytest.fixture
def ask(toys, ready):
    """Examine a model of the toys. Gives lm-eval's results, how each benchmark was asked, and what was told."""

    def run(model, *names, **settings):
        told = []
        loaded = model if not isinstance(model, str) else load(toys / model)
        results, fitted = examine(*loaded, [ready(name) for name in names], Settings(**settings), None, told.append)
        cautions = [event.text for event in told if isinstance(event, Caution | Note)]
        return results, fitted, cautions

    return run


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def prompts(results, task):
    """Of each item the contexts with their continuations."""
    return [[tuple(pair) for pair in sample["arguments"]] for sample in results["samples"][task]]


def sums(results):
    return [
        response[0][0] if isinstance(response[0], list | tuple) else response[0]
        for samples in results["samples"].values()
        for sample in samples
        for response in sample["resps"]
    ]


def numbers(results, task):
    return [sample["doc_hash"] for sample in results["samples"][task]]


@pytest.mark.parametrize(
    ("model", "settings"),
    [("base", {}), ("base", {"limit": 0.4, "share": True}), ("chat", {"limit": 3, "shots": 2}), ("base", {"texts": 1})],
    ids=["base", "a part of the items", "chat", "by texts"],
)
def test_lm_eval_alone_finds_the_same_on_the_same_items(ask, toys, tmp_path, model, settings):
    results, fitted, _ = ask(model, "trees", "sayings", **settings)
    names = write_tasks([one.plan for one in fitted], tmp_path / "tasks")
    loaded, tokenizer = load(toys / model)
    chosen = {task: [sample["doc_id"] for sample in samples] for task, samples in results["samples"].items()}
    theirs = simple_evaluate(
        model=HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=4),
        tasks=names,
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        samples=chosen,
        apply_chat_template=model == "chat",
        bootstrap_iters=0,
    )
    assert {task: sorted(ids) for task, ids in chosen.items()} == chosen
    for task in results["samples"]:
        assert prompts(results, task) == prompts(theirs, task)
    for ours, right in zip(sums(results), sums(theirs), strict=True):
        assert ours == right or math.isclose(ours, right, abs_tol=1e-4)
    keys = {key for found in theirs["results"].values() for key in found if "," in key and "stderr" not in key}
    assert {"acc,none", "acc_norm,none", "exact_match,none"} <= keys
    for task, found in theirs["results"].items():
        ours = results["results"][task]
        assert {key: ours[key] for key in found if key in keys} == {key: found[key] for key in found if key in keys}
    assert results["n-samples"] == theirs["n-samples"]


def test_a_batch_of_any_size_finds_the_same(ask):
    found = [ask("base", "trees", "sayings", batch_size=rows)[0] for rows in (None, 1, 3)]
    for other in found[1:]:
        assert other["results"] == found[0]["results"]
        for ours, right in zip(sums(other), sums(found[0]), strict=True):
            assert ours == right or math.isclose(ours, right, abs_tol=1e-4)


def test_a_limit_takes_items_by_the_seed_whoever_is_asked(ask):
    first, again, other = (ask(model, "trees", limit=4, shots=0)[0] for model in ("base", "base", "other"))
    by_seed = ask("base", "trees", limit=4, shots=0, seed=1)[0]
    for task, total in zip(TREES, SUBJECTS.values(), strict=True):
        taken = numbers(first, task)
        assert len(set(taken)) == 4 and first["n-samples"][task] == {"original": total, "effective": 4}
        assert taken == numbers(again, task) == numbers(other, task)
    assert any(numbers(first, task) != numbers(by_seed, task) for task in TREES)
    oak, pine, _ = ([sample["doc_id"] for sample in first["samples"][task]] for task in TREES)
    assert oak != pine != [0, 1, 2, 3]  # of as many, drawn for each subject


@pytest.mark.parametrize(
    ("limit", "share", "taken"),
    [(10, False, [9, 9, 10]), (0.4, True, [4, 4, 5]), (1.0, True, [9, 9, 12]), (0.001, True, [1, 1, 1])],
)
def test_a_limit_is_a_number_or_a_share_of_each_subject(ask, limit, share, taken):
    results, _, _ = ask("base", "trees", limit=limit, share=share, shots=0)
    assert [len(results["samples"][task]) for task in TREES] == taken


def test_subjects_that_do_not_fit_get_as_many_examples_as_do_and_that_is_told(ask, toys):
    results, (fitted,), told = ask("narrow", "trees", shots=3)
    model, tokenizer = load(toys / "narrow")
    context = model.config.max_position_embeddings
    given = {task: results["n-shot"][task] for task in TREES}
    assert fitted.plan.shots == 3 and dict(fitted.plan.shots_by_subject) == {t: n for t, n in given.items() if n < 3}
    assert 0 < given["trees_oak"] < 3 and given["trees_willow"] == 0
    too_long = 0
    for task, shots in given.items():
        lengths = [
            max(len(tokenizer(context + answer)["input_ids"]) - 1 for context, answer in pairs)
            for pairs in prompts(results, task)
        ]
        example = prompts(results, task)[0][0][0]
        assert example.count("答案：") == shots + 1
        if shots:
            assert max(lengths) <= context
        too_long += sum(length > context for length in lengths)
        more, _, _ = ask("base", "trees", shots=shots + 1)
        longer = [len(tokenizer(a + b)["input_ids"]) - 1 for pairs in prompts(more, task) for a, b in pairs]
        assert max(longer) > context  # one more does not fit
    assert fitted.cut == too_long > 0
    assert any(f"3 shots do not fit a context of {context:,} tokens in 3 of 3 subjects" in line for line in told)
    assert any(f"{too_long} prompts are longer than the context even alone" in line for line in told)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_prompt_fits_to_the_last_token(ask, toys, lacking):
    results, _, _ = ask("base", "trees", shots=1)
    model, tokenizer = load(toys / "base")
    longest = {
        task: max(len(tokenizer(a + b)["input_ids"]) - 1 for pairs in prompts(results, task) for a, b in pairs)
        for task in TREES
    }
    assert longest["trees_willow"] > max(longest["trees_oak"], longest["trees_pine"])
    model.config.max_position_embeddings = longest["trees_willow"] - lacking
    _, (fitted,), told = ask((model, tokenizer), "trees", shots=1)
    assert fitted.plan.shots_by_subject == ({"trees_willow": 0} if lacking else {})
    assert fitted.cut == 0 and len(told) == lacking


def test_nothing_is_told_where_all_fits(ask):
    results, (fitted,), told = ask("base", "trees", shots=1)
    assert told == [] and fitted.cut == 0 and not fitted.plan.shots_by_subject
    assert {results["n-shot"][task] for task in TREES} == {1}


def test_examples_that_are_drawn_are_measured_as_they_will_be_asked(ask, monkeypatch):
    measured, asked = set(), set()
    encoded, answered = Scorer.encoded, Scorer.loglikelihood

    def measure(self, pairs):
        measured.update(pairs)
        return encoded(self, pairs)

    def answer(self, requests, **told):
        asked.update(request.args for request in requests)
        monkeypatch.setattr(Scorer, "encoded", encoded)
        return answered(self, requests, **told)

    monkeypatch.setattr(Scorer, "encoded", measure)
    monkeypatch.setattr(Scorer, "loglikelihood", answer)
    results, (fitted,), _ = ask("narrow", "drawn")
    assert asked and asked <= measured
    assert results["n-shot"]["drawn"] == fitted.plan.shots_by_subject["drawn"] == 1
    assert fitted.cut == 0


def test_written_answers_leave_room_for_themselves(ask, toys):
    model, tokenizer = load(toys / "base")
    model.config.max_position_embeddings = 12
    results, (fitted,), told = ask((model, tokenizer), "sayings")
    lengths = [len(tokenizer(context)["input_ids"]) for ((context, _),) in prompts(results, "sayings")]
    limit = fitted.plan.max_new_tokens
    assert limit == 6
    assert fitted.cut == sum(length > 12 - limit for length in lengths)
    assert any("longer than the context" in line for line in told) == (fitted.cut > 0)
    model.config.max_position_embeddings = 8
    _, (fitted,), _ = ask((model, tokenizer), "sayings")
    assert fitted.plan.max_new_tokens == 4
    assert fitted.cut == sum(length > 4 for length in lengths) > 0


def test_more_shots_than_examples_are_refused(ask):
    with pytest.raises(BuddyError, match=rf"trees: 6 shots, but oak has {EXAMPLES} examples; take --shots 5"):
        ask("base", "trees", shots=6)


def test_shots_of_a_benchmark_that_fixes_them_stay_and_that_is_told(ask):
    results, _, told = ask("base", "sayings", shots=2)
    assert results["n-shot"]["sayings"] == 0
    assert told == ["sayings: has 0 shots by its definition; --shots does not change that"]
    assert ask("base", "sayings", shots=0)[2] == []


def test_a_chat_model_is_asked_by_its_template_with_examples_as_turns(ask, toys):
    results, (fitted,), _ = ask("chat", "trees", shots=2)
    assert fitted.plan.chat
    for pairs in prompts(results, "trees_oak"):
        assert [answer for _, answer in pairs] == list("ABCD")  # no space after the template
        (context,) = {context for context, _ in pairs}
        assert context.count("<|im_start|>user\n") == 3
        assert context.count("<|im_start|>assistant\n") == 3 and context.endswith("<|im_start|>assistant\n")
        turns = context.split("<|im_start|>")[1:]
        assert [turn.partition("\n")[0] for turn in turns] == ["system", *["user", "assistant"] * 3]
        assert [turn.partition("\n")[2] for turn in turns[2:6:2]] == ["A<|im_end|>\n", "D<|im_end|>\n"]
        assert "答案：" not in turns[2] + turns[4] and all("答案：" in turn for turn in turns[1::2])


def test_a_base_model_is_asked_without_any_template(ask):
    results, (fitted,), _ = ask("base", "trees", shots=2)
    assert not fitted.plan.chat
    for pairs in prompts(results, "trees_oak"):
        assert [answer for _, answer in pairs] == [f" {letter}" for letter in "ABCD"]
        assert not any("<|" in context for context, _ in pairs)


@pytest.mark.parametrize(("model", "first"), [("base", "以下"), ("chat", "<|im_start|>system\n")])
def test_the_first_ids_that_are_read_are_the_prompts_own(ask, toys, monkeypatch, model, first):
    """No mark is added before a prompt, and the template's own stands once."""
    read = []
    scored = Scorer._scored
    monkeypatch.setattr(Scorer, "_scored", lambda self, requests: read.extend(requests) or scored(self, requests))
    loaded, tokenizer = load(toys / model)
    ask((loaded, tokenizer), "trees", shots=1)
    for context, _ in read:
        assert tokenizer.decode(context).startswith(first)
        assert tokenizer.eos_token_id != context[0]
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert [context[:2].count(start) for context, _ in read] == [int(model == "chat")] * len(read)


@pytest.mark.parametrize("name", ["base", "chat", "qwen3"])
def test_ids_that_are_judged_are_those_of_the_examples(ask, toys, name):
    """A letter alone and a letter after a blank or a colon may be other ids: what is judged is what was shown."""
    results, _, _ = ask("chat" if name == "chat" else "base", "trees", shots=5)
    scorer = Scorer(*(_with_qwens_words() if name == "qwen3" else load(toys / name)), None, None, Kept(), silent)
    seen = 0
    for pairs in prompts(results, "trees_oak")[:2]:
        for (context, answer), (ids, judged) in zip(pairs, scorer.encoded(pairs), strict=True):
            shown = context.count(("assistant\n" if name == "chat" else "答案：") + answer)
            run = [ids[-1], *judged]  # the token before the answer, and the answer
            assert sum(ids[i : i + len(run)] == run for i in range(len(ids))) == shown
            seen += shown
    assert seen == 2 * EXAMPLES


def _with_qwens_words():
    config = BuddyGPTConfig(
        vocab_size=151_669, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    return BuddyGPTForCausalLM(config).eval(), load_tokenizer("qwen3")


def test_answers_are_judged_by_their_texts_on_request(ask):
    results, (trees, sayings), told = ask("base", "trees", "sayings", texts=True, shots=0)
    (pairs, *_) = prompts(results, "trees_oak")
    assert [answer for _, answer in pairs] == [" 0米", " 1米远", " 2米远远", " 3米远远远"]
    assert all("A." not in context and context.endswith("答案：") for context, _ in pairs)
    assert (trees.plan.metric, sayings.plan.metric) == ("acc_norm,none", "exact_match,none")
    assert told == []
    *_, told = ask("base", "drawn", texts=True, shots=0)
    assert told == ["drawn: has no reading by the texts of answers; it is judged as always"]


def test_what_is_hushed_for_lm_eval_is_as_before_afterwards(ask):
    import datasets

    logger, revision = logging.getLogger("lm_eval"), evaluator.get_git_commit_hash
    level = logger.level
    logger.setLevel(logging.INFO)
    datasets.enable_progress_bars()
    ask("base", "sayings")
    with pytest.raises(BuddyError):
        ask("base", "trees", shots=6)
    assert logger.level == logging.INFO and not datasets.are_progress_bars_disabled()
    assert evaluator.get_git_commit_hash is revision
    logger.setLevel(level)
