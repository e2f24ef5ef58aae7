"""Loading: every fault at once, each with its file and line, and what would be right."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe


def faults(path, *overrides):
    with pytest.raises(BuddyError) as caught:
        load_recipe(path, overrides)
    return [line.replace(str(path.parent) + "/", "") for line in caught.value.lines]


def test_a_sound_recipe_loads(write):
    recipe = load_recipe(write())
    assert recipe.name == "small"
    assert recipe.pretrain.optimizer.learning_rate == 1e-3
    assert recipe.pretrain.steps == 977  # 1e6 / 1024, rounded up


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("hidden_size: 64", "hiden_size: 64", "r.yaml:5: model.hiden_size: unknown key; did you mean 'hidden_size'?"),
        (
            "hidden_size: 64",
            "hidden_size: 64\n  lr: 1",
            "r.yaml:6: model.lr: is called pretrain.optimizer.learning_rate here",
        ),
        ("name: small", "name: small\nsave_every: 3", "r.yaml:3: save_every: unknown here; it belongs under pretrain"),
        (
            "hidden_size: 64",
            "hidden_size: 64\n  hidden_size: 65",
            "r.yaml:6: hidden_size: given twice, first in line 5; keep one",
        ),
        (
            "learning_rate: 1e-3",
            "learning_rate: fast",
            "r.yaml:18: pretrain.optimizer.learning_rate: 'fast' is not a number",
        ),
        (
            "kind: adamw",
            "kind: adam",
            "r.yaml:18: pretrain.optimizer.kind: 'adam' is unknown; one of adamw, muon; did you mean",
        ),
        (
            "{kind: cosine}",
            "[cosine]",
            "r.yaml:19: pretrain.schedule: must be a section with keys of its own, not a list",
        ),
        ("tokenizer: {train: 512}", "tokenizer: qwen3", "r.yaml:10: tokenizer: must be a section"),
        (
            "tokenizer: {train: 512}",
            "tokenizer: {train: 513}",
            "r.yaml:10: tokenizer.train: 513 entries, but the model has 512",
        ),
        (
            "sequence_length: 64",
            "sequence_length: 256",
            "pretrain.sequence_length: 256 tokens, but the model has only 128",
        ),
        ("tokens_per_batch: 1Ki", "tokens_per_batch: 1000", "pretrain.tokens_per_batch: 1k is not a multiple of"),
        (
            "num_attention_heads: 4",
            "num_attention_heads: 3",
            "model.attention.num_attention_heads: 3 heads do not divide",
        ),
        ("schema: 1", "schema: 2", "r.yaml:1: schema:"),
        ("name: small", "name: a/b", "r.yaml:2: name: 'a/b' may hold only letters"),
        ("save_every: 10", "save_every: 0", "r.yaml:20: pretrain.save_every: must be greater than 0, not 0"),
        ("save_every: 10", "save_every:", "r.yaml:20: pretrain.save_every:"),
        ("kind: demo", "kind: demo, path: x", "r.yaml:12: data.sources.0.path:"),
        ("  tokens: 1M\n", "", "r.yaml:13: pretrain.tokens: is missing"),
        ("name: small", "name: small\npassword: hunter2hunter2", "r.yaml:3: password: looks like a secret"),
        ("name: small", "name: hf_abcdefghijklmnopqrstuv", "r.yaml:2: name: looks like a secret"),
    ],
)
def test_a_fault_names_its_place_and_the_cure(write, old, new, line):
    told = faults(write((old, new)))
    assert any(line in fault for fault in told), told
    assert not any("hunter2" in fault or "hf_abc" in fault for fault in told)


def test_all_faults_at_once_in_the_order_of_lines(write):
    told = faults(
        write(("hidden_size: 64", "hiden_size: 64"), ("kind: adamw", "kind: adam"), ("train: 512", "train: x"))
    )
    numbers = [int(fault.split(":")[1]) for fault in told]
    assert numbers == sorted(numbers)
    assert len(told) == 4  # the misspelt key, the key that is missing for it, the tokenizer, the optimizer


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "r.yaml:1: empty"),
        ("# nothing\n", "r.yaml:1: empty"),
        ("- 1\n", "r.yaml:1: not a mapping"),
        ("schema: 1\nname: [a\n", "not YAML"),
        ("a: b: c\n", "r.yaml:1: not YAML"),
    ],
)
def test_what_is_no_recipe(write, text, line):
    assert line in faults(write(text=text))[0]


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("schema: 1\nname: 中文\n".encode("gbk"))
    assert faults(path)[0].startswith("r.yaml:2: not UTF-8")


def test_a_missing_file_names_a_near_one(write):
    near = write(name="small.yaml")
    assert "did you mean 'small.yaml'" in faults(near.with_name("smal.yaml"))[0]


def test_extends_merges_and_a_variant_of_another_kind_replaces(write, tmp_path):
    write(name="base.yaml")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base.yaml\nname: child\n"
        "pretrain:\n  tokens: 2M\n  optimizer: {kind: muon, learning_rate: 0.01, adamw_learning_rate: 1e-3}\n"
    )
    recipe = load_recipe(child)
    assert (recipe.name, recipe.pretrain.tokens, recipe.pretrain.optimizer.kind) == ("child", 2_000_000, "muon")
    assert recipe.model.hidden_size == 64


def test_a_fault_in_the_file_that_is_extended_names_that_file(write, tmp_path):
    write(("hidden_size: 64", "hiden_size: 64"), name="base.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nname: child\n")
    assert any(fault.startswith("base.yaml:5: model.hiden_size") for fault in faults(child))


def test_files_that_extend_one_another(write, tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    assert "in turn" in faults(tmp_path / "a.yaml")[0]
    (tmp_path / "c.yaml").write_text("name: c\nextends: nowhere.yaml\n")
    assert faults(tmp_path / "c.yaml")[0].startswith("c.yaml:2: extends: no file")


def test_overrides(write):
    recipe = load_recipe(
        write(),
        [
            "pretrain.tokens=64Ki",
            "name=other",
            "data.sources.0={kind: files, name: mine, paths: [a.txt]}",
            "pretrain.optimizer.weight_decay=0",
        ],
    )
    assert recipe.pretrain.tokens == 65536
    assert recipe.name == "other"
    assert recipe.data.sources[0].kind == "files"
    assert recipe.pretrain.optimizer.weight_decay == 0


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("pretrain.tokns=1", "--set pretrain.tokns: pretrain.tokns: unknown key; did you mean 'tokens'?"),
        ("pretrain.tokens", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("data.sources.7=3", "is a list of 1"),
        ("pretrain.tokens={", "not YAML"),
    ],
)
def test_a_wrong_override(write, override, told):
    assert told in faults(write(), override)[0]


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_text_crashes_the_loader(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BuddyError):
        load_recipe(path)


@given(st.sampled_from(["model", "pretrain", "data", "tokenizer", "name", "model.attention", "data.sources.0"]),
       st.text(max_size=30))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_override_crashes_the_loader(tmp_path_factory, key, value):
    from tests.recipe.conftest import BASE

    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_text(BASE)
    with suppress(BuddyError):
        load_recipe(path, [f"{key}={value}"])
