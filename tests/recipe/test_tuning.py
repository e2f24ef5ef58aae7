"""The sections `sft` and `dpo`: their faults, each with its place; what a run keeps of them; old runs stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import PRETRAINING
from tests.recipe.conftest import BASE

TUNED = (
    BASE
    + """\
sft:
  data:
    sources:
      - {kind: files, paths: [a.jsonl]}
      - {kind: files, paths: [b.jsonl]}
  sequence_length: 256
  batch_size: 8
  micro_batch_size: 4
  rope: {kind: linear}
  lora: {rank: 8}
  optimizer: {kind: adamw, learning_rate: 1e-4}
  schedule: {kind: cosine}
dpo:
  data:
    sources: [{kind: demo}]
  batch_size: 8
  micro_batch_size: 2
  loss_type: [sigmoid]
  optimizer: {kind: adamw, learning_rate: 1e-5}
  schedule: {kind: cosine}
"""
)


@pytest.fixture
def tuned(write):
    """Write a recipe with `sft` and `dpo`, some of its text replaced, and give its path."""
    return lambda *replacements, **more: write(*replacements, text=TUNED, **more)


def faults(path, *overrides):
    with pytest.raises(BuddyError) as caught:
        load_recipe(path, overrides)
    return [line.replace(str(path.parent) + "/", "") for line in caught.value.lines]


def test_a_sound_recipe_loads_with_its_defaults(tuned):
    recipe = load_recipe(tuned())
    sft, dpo = recipe.sft, recipe.dpo
    assert (sft.epochs, sft.packing, sft.model, sft.rope.kind, sft.rope.factor) == (1, True, None, "linear", None)
    assert (sft.lora.rank, sft.lora.alpha, sft.save_every, sft.eval_every) == (8, None, None, None)
    assert (dpo.beta, dpo.loss_type, dpo.label_smoothing, dpo.reference) == (0.1, ["sigmoid"], 0, "cached")
    assert dpo.sequence_length is None and dpo.lora is None
    assert recipe.rows("pretrain") == recipe.data and recipe.rows("sft") == sft.data and recipe.rows("dpo") == dpo.data
    assert load_recipe(tuned(("  lora: {rank: 8}\n", ""), name="s.yaml")).rows("sft") == sft.data


def test_a_recipe_without_them(write):
    recipe = load_recipe(write())
    assert recipe.rows("sft") is None and recipe.rows("dpo") is None


LINE = {text.strip(): number for number, text in enumerate(TUNED.splitlines(), 1)}


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("batch_size: 8\n  micro_batch_size: 4", "batch_size: 10\n  micro_batch_size: 4", "sequence_length: 256",
         "+1: sft.batch_size: 10 is not a multiple of micro_batch_size = 4; the next one is 12"),
        ("batch_size: 8\n  micro_batch_size: 2", "batch_size: 3\n  micro_batch_size: 2", "sources: [{kind: demo}]",
         "dpo.batch_size: 3 is not a multiple of micro_batch_size = 2; the next one is 4"),
        ("paths: [b.jsonl]", "paths: [b.jsonl], render: chat", "- {kind: files, paths: [b.jsonl]}",
         "sft.data.sources.1.render: is of pretraining; here all rows go through the chat template"),
        ("paths: [a.jsonl]", "paths: [a.jsonl], render: text", "- {kind: files, paths: [a.jsonl]}",
         "sft.data.sources.0.render: is of pretraining"),
        ("paths: [a.jsonl]", "paths: [a.jsonl], weight: 2", "- {kind: files, paths: [b.jsonl]}",
         "sft.data.sources.1.weight: give every source a weight, or none"),
        ("paths: [b.jsonl]", "paths: [b.jsonl], weight: 2", "- {kind: files, paths: [a.jsonl]}",
         "sft.data.sources.0.weight: give every source a weight, or none"),
        ("rope: {kind: linear}", "rope: {kind: linear, factor: 1.5}", "rope: {kind: linear}",
         "sft.rope.factor: 1.5 x 128 positions do not reach 256 (sft.sequence_length); 2 would, as would none"),
        ("rope: {kind: linear}", "rope: {kind: linaer}", "rope: {kind: linear}",
         "sft.rope.kind: 'linaer' is unknown; one of"),
        ("rope: {kind: linear}", "rope: {factor: 0.5}", "rope: {kind: linear}", "sft.rope.factor: "),
        ("lora: {rank: 8}", "lora: {rank: 0}", "lora: {rank: 8}", "sft.lora.rank: must be greater than 0, not 0"),
        ("lora: {rank: 8}", "lora: {lora_alpha: 0}", "lora: {rank: 8}", "lora_alpha: is called sft.lora.alpha here"),
        ("sequence_length: 256", "epochs: 0", "sequence_length: 256", "sft.epochs: must be greater than 0, not 0"),
        ("sequence_length: 256", "num_train_epochs: 3", "sequence_length: 256",
         "sft.num_train_epochs: is called sft.epochs here"),
        ("sequence_length: 256", "lr: 3", "sequence_length: 256",
         "sft.lr: is called sft.optimizer.learning_rate here"),
        ("sequence_length: 256", "cutoff_len: 3", "sequence_length: 256",
         "sft.cutoff_len: is called sft.sequence_length here"),
        ("loss_type: [sigmoid]", "loss_type: [sigmoid, simpo]", "loss_type: [sigmoid]",
         "dpo.loss_type.1: 'simpo' is unknown; one of 'sigmoid'"),
        ("loss_type: [sigmoid]", "loss_type: [sigmiod]", "loss_type: [sigmoid]", "did you mean 'sigmoid'?"),
        ("loss_type: [sigmoid]", "loss_type: sigmoid", "loss_type: [sigmoid]", "dpo.loss_type: must be a list"),
        ("loss_type: [sigmoid]", "loss_type: []", "loss_type: [sigmoid]", "dpo.loss_type: "),
        ("loss_type: [sigmoid]", "loss_type: [ipo, ipo]", "loss_type: [sigmoid]",
         "dpo.loss_type: the same loss stands there twice"),
        ("loss_type: [sigmoid]", "loss_type: [exo_pair]", "dpo:",
         "dpo.label_smoothing: exo_pair needs one above 0; its paper recommends 1e-3"),
        ("loss_type: [sigmoid]", "label_smoothing: 0.1", "loss_type: [sigmoid]",
         "dpo.label_smoothing: sigmoid would not read it; set it to 0, or take one of exo_pair, robust"),
        ("loss_type: [sigmoid]", "label_smoothing: 0.5", "loss_type: [sigmoid]",
         "dpo.label_smoothing: must be less than 0.5, not 0.5"),
        ("loss_type: [sigmoid]", "beta: 0", "loss_type: [sigmoid]", "dpo.beta: must be greater than 0, not 0"),
        ("loss_type: [sigmoid]", "reference: none", "loss_type: [sigmoid]", "dpo.reference: 'none' is unknown; one of"),
        ("loss_type: [sigmoid]", "packing: true", "loss_type: [sigmoid]",
         "dpo.packing: unknown here; it belongs under sft"),
        ("sources: [{kind: demo}]\n  batch", "sources: [{kind: demo, validation: 0}]\n    validation: 0\n  batch", None,
         "dpo.data.validation: nothing is held out"),
        ("  schedule: {kind: cosine}\ndpo", "  schedule: {kind: wsd, warmup: 0.5, decay: 0.6}\ndpo", None,
         "sft.schedule.decay: warmup and decay together are more than the whole run"),
        ("  batch_size: 8\n  micro_batch_size: 2", "  micro_batch_size: 2", "dpo:", "dpo.batch_size: is missing"),
    ],
)  # fmt: skip
def test_a_fault_names_its_place_and_the_cure(tuned, old, new, line, told):
    found = faults(tuned((old, new)))
    offset, _, told = told.partition(": ") if told.startswith("+") else ("0", "", told)
    (fault,) = [fault for fault in found if told in fault]
    if line is not None and not line.startswith("sources:"):  # that stands there twice
        assert fault.startswith(f"r.yaml:{LINE[line] + int(offset)}: "), fault


@pytest.mark.parametrize(
    ("loss", "smoothing"), [("exo_pair", 1e-3), ("robust", 0.1), ("robust", 0), ("aot", 0.1), ("aot_unpaired", 0.1)]
)
def test_losses_that_read_the_smoothing_take_it(tuned, loss, smoothing):
    path = tuned()
    recipe = load_recipe(path, [f"dpo.loss_type=[sigmoid, {loss}]", f"dpo.label_smoothing={smoothing}"])
    assert (recipe.dpo.loss_type, recipe.dpo.label_smoothing) == (["sigmoid", loss], smoothing)


@pytest.mark.parametrize(
    "change", [("{kind: linear}", "{factor: 2}"), ("  sequence_length: 256\n", ""), ("{kind: linear}", "{kind: yarn}")]
)
def test_a_factor_that_reaches_and_one_left_out(tuned, change):
    load_recipe(tuned(change))


def test_another_models_context_is_not_this_recipes(tuned):
    load_recipe(tuned(("rope: {kind: linear}", "rope: {factor: 1.5}\n  model: someone/longer")))


def test_extends_and_overrides(tuned, tmp_path):
    tuned(name="base.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nname: child\nsft:\n  epochs: 3\n  rope: {kind: yarn}\n", "utf-8")
    recipe = load_recipe(child, ["dpo.beta=0.2", "sft.data.sources.1.weight=2", "sft.data.sources.0.weight=1"])
    assert (recipe.sft.epochs, recipe.sft.rope.kind, recipe.sft.batch_size) == (3, "yarn", 8)
    assert recipe.dpo.beta == 0.2 and [s.weight for s in recipe.sft.data.sources] == [1, 2]
    (fault,) = faults(child, "sft.batch_size=6")
    assert fault.startswith("--set sft.batch_size: sft.batch_size: 6 is not a multiple")


def test_a_runs_recipe_is_read_back_as_it_was(tuned, tmp_path):
    for changes in ((), (("[a.jsonl]", "[a.jsonl], weight: 1"), ("[b.jsonl]", "[b.jsonl], weight: 1"))):
        recipe = load_recipe(tuned(*changes))
        run = Run(tmp_path / f"run{len(changes)}")
        run.claim(recipe, *PRETRAINING)
        kept = load_recipe(run.path / "recipe.yaml")
        assert kept.as_dict() == recipe.as_dict() and kept.digest() == recipe.digest()
        assert [s.weight for s in kept.sft.data.sources] == [s.weight for s in recipe.sft.data.sources]
        for section in ("sft", "dpo", *PRETRAINING):
            run.check(recipe, section)


def test_pretraining_does_not_hang_on_what_comes_after_it(tuned, write):
    assert load_recipe(tuned()).digest(*PRETRAINING) == load_recipe(write(name="s.yaml")).digest(*PRETRAINING)


def test_a_weight_of_one_is_the_one_that_is_left_out(write, tmp_path):
    """As a run keeps it; in pretraining, where weights are shares from the start."""
    plain = load_recipe(write())
    given = load_recipe(write(("[{kind: demo}]", "[{kind: demo, weight: 1.0}]"), name="s.yaml"))
    assert plain.data.sources[0].weight is None and plain.as_dict() == given.as_dict()
    assert plain.as_dict()["data"]["sources"][0]["weight"] == 1.0
    run = Run(tmp_path / "run")
    run.claim(given, *PRETRAINING)
    run.check(plain, *PRETRAINING)
    other = load_recipe(write(("[{kind: demo}]", "[{kind: demo, weight: 2}]"), name="t.yaml"))
    with pytest.raises(BuddyError, match=r"differs in data.sources"):
        run.check(other, *PRETRAINING)


def test_a_chapter_with_a_model_of_its_own_joins_any_run(tuned, tmp_path):
    """Nothing of the chapters before decides it; once begun, its own section does."""
    run = Run(tmp_path / "run")
    run.claim_chapter(load_recipe(tuned(), ["sft.model=a"]), "sft")
    other = load_recipe(tuned(name="b.yaml"), ["dpo.model=b", "dpo.beta=0.3", "sft.epochs=7", "model.hidden_size=64"])
    run.claim_chapter(other, "dpo")
    kept = load_recipe(run.path / "recipe.yaml")
    assert (kept.dpo.beta, kept.sft.model) == (0.3, "a")
    (run.chapter("dpo") / "checkpoints").mkdir(parents=True)
    with pytest.raises(BuddyError, match=r"differs in dpo.beta \(0.3 there, 0.4 here\)"):
        run.check_chapter(load_recipe(tuned(name="b.yaml"), ["dpo.model=b", "dpo.beta=0.4"]), "dpo")


def test_a_run_that_lies_on_another_disk_finds_its_data(tmp_path):
    """By links: of the run, of a chapter, and of all runs."""
    data = tmp_path / "runs" / ".data" / "abc"
    data.mkdir(parents=True)
    for name, chapter in (("run", "pretrain"), ("run/sft", "sft")):
        disk = tmp_path / "disk" / "deep" / name
        disk.mkdir(parents=True)
        link = tmp_path / "runs" / name
        link.symlink_to(disk)
        run = Run(tmp_path / "runs" / "run")
        run.link_data(data, chapter)
        assert run.data(chapter).resolve() == data
        link.unlink()
        link.mkdir()
    (tmp_path / "moved").symlink_to(tmp_path / "runs")
    Run(tmp_path / "moved" / "run").link_data(tmp_path / "moved" / ".data" / "abc")
    assert (tmp_path / "runs" / "run" / "data").readlink() == Path("../.data/abc")
