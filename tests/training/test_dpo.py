"""Preference tuning: it starts from ln 2, is what trl computes, and the reference stays what it was."""

import inspect
import math
import re
from typing import get_args

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from peft import get_peft_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl.trainer import dpo_trainer

from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.modeling import DecoderLayer
from buddygpt.recipe.base import FieldError
from buddygpt.recipe.dpo import SMOOTHED, DPOSection, LossType
from buddygpt.recipe.lora import LoraSection
from buddygpt.training import dpo
from buddygpt.training.dpo import DPOTrainer
from buddygpt.training.lora import lora_config, merged
from buddygpt.training.pace import Pace
from buddygpt.training.reference import ScoreFile, pair_key, weights_hash
from tests.training.kept import keep

SECTION = {
    "data": {"sources": [{"kind": "demo"}]},
    "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
    "schedule": {"kind": "cosine", "warmup": 0.0},
    "precision": "fp32",
    "micro_batch_size": 2,
    "save_every": 100,
    "eval_every": 100,
}


def make_section(accumulation=1, **changes):
    fields = SECTION | changes
    return DPOSection.model_validate(fields | {"batch_size": accumulation * fields["micro_batch_size"]})


MOE = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24,
}  # fmt: skip


def make_model(**changes):
    torch.manual_seed(0)
    config = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    }  # fmt: skip
    return BuddyGPTForCausalLM(BuddyGPTConfig(**config | (changes or {"intermediate_size": 48})))


def make_tokenizer():
    letters = {chr(0x4E00 + i): i + 1 for i in range(63)}
    tokenizer = Tokenizer(models.WordLevel({"<e>": 0, **letters}, "<e>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", pad_token="<e>")


def make_pairs(count, seed=0):
    """Pairs of many lengths; of the answers, the chosen one is made of small ids."""
    rng = np.random.default_rng(seed)

    def draw(low, high, longest):
        return rng.integers(low, high, rng.integers(1, longest)).tolist()

    return [
        {"prompt_ids": draw(1, 64, 12), "chosen_ids": [*draw(1, 30, 20), 0], "rejected_ids": [*draw(30, 64, 20), 0]}
        for _ in range(count)
    ]


class Figures(TrainerCallback):
    """What is logged; may stop a run, or end it as a kill does."""

    def __init__(self, stop=None):
        self.rows, self.stop = [], stop

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append(dict(logs))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.stop:
            control.should_save = control.should_training_stop = True
        return control


@pytest.fixture
def build(tmp_path):
    def builder(steps=3, accumulation=1, pairs=None, model=None, held_out=None, name="run", stop=None, **changes):
        section = make_section(accumulation, **changes)
        pairs = make_pairs(steps * accumulation * section.micro_batch_size) if pairs is None else pairs
        figures = Figures(stop)
        trainer = DPOTrainer(
            make_model() if model is None else model, make_tokenizer(), section,
            keep(tmp_path / name, pairs, len(pairs) // steps), held_out or {}, [figures],
            Pace(steps, len(pairs) // steps, accumulation, steps, section.eval_every, lambda done: done),
            tmp_path / "scores", silent,
        )  # fmt: skip
        return trainer, figures

    return builder


def rows_of(figures):
    return [row for row in figures.rows if "loss" in row]


@pytest.mark.parametrize("reference", ["cached", "live"])
@pytest.mark.parametrize("lora", [None, LoraSection(rank=4), LoraSection(rank=4, dropout=0.3)])
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_the_first_loss_is_ln_2(build, reference, lora, micro_batch_size):
    trainer, figures = build(2, micro_batch_size=micro_batch_size, reference=reference, lora=lora)
    trainer.train()
    first, second = rows_of(figures)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert second["rewards/margins"] != 0


def test_the_first_loss_is_ln_2_with_experts_and_latent_attention(build):
    latent = {
        "attention_kind": "mla", "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8, "v_head_dim": 12,
    }  # fmt: skip
    for changes in (MOE, MOE | latent):
        trainer, figures = build(1, model=make_model(**changes), micro_batch_size=4)
        trainer.train()
        assert rows_of(figures)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


class Theirs(trl.DPOTrainer):
    """trl's trainer with its own head and collator, over ids that are there already, in order."""

    def _prepare_dataset(self, dataset, *rest):
        return dataset

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _send_telemetry(self):
        pass


@pytest.mark.parametrize("reference", ["cached", "live"])
@pytest.mark.parametrize("lora", [None, LoraSection(rank=4)])
def test_losses_margins_and_log_probabilities_are_trls(build, tmp_path, reference, lora):
    pairs = make_pairs(12)
    trainer, figures = build(3, 2, pairs, reference=reference, lora=lora)
    trainer.train()
    theirs = Figures()
    args = trl.DPOConfig(
        str(tmp_path / "theirs"), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1, report_to="none", disable_tqdm=True,
        save_strategy="no", learning_rate=3e-3, beta=0.1, remove_unused_columns=False, seed=0,
    )  # fmt: skip
    torch.manual_seed(0)
    other = Theirs(
        make_model(), None if lora else make_model(), args, train_dataset=Dataset.from_list(pairs),
        processing_class=make_tokenizer(), callbacks=[theirs], peft_config=lora_config(lora) if lora else None,
    )  # fmt: skip
    other.create_optimizer = lambda *_: DPOTrainer.create_optimizer(other)
    other.create_scheduler = lambda *a, **k: DPOTrainer.create_scheduler(other, *a, **k)
    other.section = trainer.section
    other.train()
    assert "forward" in vars(other.model.get_base_model() if lora else other.model)
    for step in (0, 2):
        ours, expected = rows_of(figures)[step], rows_of(theirs)[step]
        for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert ours[name] == pytest.approx(expected[name], abs=1e-5), (step, name)
        for name in ("logps/chosen", "logps/rejected", "logits/chosen", "entropy", "mean_token_accuracy", "grad_norm"):
            assert ours[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), (step, name)


def test_our_head_is_used_by_policy_and_reference(build):
    for precision in ("fp32", "bf16"):
        trainer, _ = build(1, reference="live", precision=precision)
        for model in (trainer.model, trainer.ref_model):
            forward = inspect.unwrap(model.forward)
            assert getattr(forward, "__func__", forward).__module__ == "buddygpt.model.modeling"


def test_bf16_starts_near_ln_2_with_the_same_numbers_cached_and_live(build):
    losses = {}
    for reference in ("cached", "live"):
        trainer, figures = build(2, reference=reference, precision="bf16")
        trainer.train()
        losses[reference] = [row["loss"] for row in rows_of(figures)]
        assert losses[reference][0] == pytest.approx(math.log(2), abs=5e-3)
    assert losses["cached"] == pytest.approx(losses["live"], abs=5e-3)


def test_the_reference_stays_what_it_was(build):
    trainer, _ = build(5, reference="live")
    before, policy = weights_hash(trainer.ref_model), weights_hash(trainer.model)
    assert before == policy
    assert not trainer.ref_model.training and not any(p.requires_grad for p in trainer.ref_model.parameters())
    trainer.train()
    assert weights_hash(trainer.ref_model) == before
    assert weights_hash(trainer.model) != policy


def test_adapters_leave_the_weights_and_their_hash_alone(build):
    plain = weights_hash(make_model())
    trainer, _ = build(3, lora=LoraSection(rank=4))
    trainer.train()
    assert weights_hash(trainer.model) == plain
    assert weights_hash(merged(trainer.model)) != plain
    assert weights_hash(get_peft_model(make_model(), lora_config(LoraSection()))) == plain


def test_caching_changes_neither_order_nor_randomness_nor_result(build):
    ends, states = [], []
    for reference in ("live", "cached", "cached"):  # the last finds its scores on disk
        trainer, _ = build(3, reference=reference, lora=LoraSection(rank=4, dropout=0.5))
        states.append(torch.get_rng_state())
        trainer.train()
        ends.append({name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad})
    assert torch.equal(states[0], states[1]) and torch.equal(states[1], states[2])
    for end in ends[1:]:
        for name, value in end.items():
            torch.testing.assert_close(value, ends[0][name], rtol=0, atol=1e-4)


def test_scores_belong_to_their_pairs_whatever_the_order(build, monkeypatch):
    pairs = make_pairs(10)
    build(5, pairs=pairs)
    alone = {}
    for pair in pairs:
        ids = {side: torch.tensor([pair["prompt_ids"] + pair[side]]) for side in ("chosen_ids", "rejected_ids")}
        start = len(pair["prompt_ids"])
        with torch.no_grad():
            found = [
                make_model()(x).logits.log_softmax(-1)[0, :-1].gather(1, x[0, 1:, None])[start - 1 :].sum()
                for x in ids.values()
            ]
        alone[pair_key(pair)] = tuple(map(float, found))
    asked = []
    monkeypatch.setattr(DPOTrainer, "_reference", lambda self, pairs: asked.append(pairs))
    again, _ = build(2, pairs=[pairs[i] for i in (7, 2, 9, 4)])
    assert not asked, "what is known is not computed again"
    for i in range(4):
        row = again.train_dataset[i]
        expected = alone[pair_key(row)]
        assert (row["ref_chosen_logps"], row["ref_rejected_logps"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_scored_before_an_end_is_not_scored_again(build, monkeypatch, tmp_path, killed):
    pairs, seen = make_pairs(20), []
    whole, add = DPOTrainer._reference, ScoreFile.add

    def reference(self, some, limit=6):
        if len(seen) >= limit:
            if killed:  # nothing runs any more
                monkeypatch.setattr(ScoreFile, "add", lambda *_: None)
            raise KeyboardInterrupt
        seen.extend(map(pair_key, some))
        return whole(self, some)

    if killed:
        monkeypatch.setattr(dpo, "SAVED_EVERY", 1)
    monkeypatch.setattr(DPOTrainer, "_reference", reference)
    with pytest.raises(KeyboardInterrupt):
        build(10, pairs=pairs)
    monkeypatch.setattr(ScoreFile, "add", add)
    monkeypatch.setattr(DPOTrainer, "_reference", lambda self, some: reference(self, some, 10**6))
    trainer, _ = build(10, pairs=pairs)
    assert len(seen) == len(set(seen)) == 20
    (file,) = (tmp_path / "scores").iterdir()
    assert file == trainer.file.path and len(trainer.file.load()) == 20


def test_another_reference_or_precision_has_another_file(build):
    other = make_model()
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-3
    files = [build(1)[0].file, build(1, model=other)[0].file, build(1, precision="bf16")[0].file]
    assert len({file.name for file in files}) == 3
    assert build(1, lora=LoraSection())[0].file.name == files[0].name


def test_keys_tell_where_a_prompt_ends():
    a = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}
    b = {"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}
    swapped = {"prompt_ids": [1, 2], "chosen_ids": [4], "rejected_ids": [3]}
    assert len({pair_key(x) for x in (a, b, swapped)}) == 3 and pair_key(a) == pair_key(dict(a))


def test_a_damaged_file_of_scores_is_computed_again(build):
    trainer, _ = build(1)
    trainer.file.path.write_bytes(b"PK\x03\x04 half")
    again, figures = build(1)
    again.train()
    assert rows_of(figures)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_parts_become_one_file(tmp_path):
    file = ScoreFile(tmp_path, "a")
    for i in range(3):
        file.add({bytes([i]) * 16: (-float(i), 0.5)})
    file.gather()
    assert [path.name for path in tmp_path.iterdir()] == [f"{file.name}.npz"]
    assert file.load() == {bytes([i]) * 16: (-float(i), 0.5) for i in range(3)}


def test_the_recipe_knows_trls_losses():
    message = inspect.getsource(dpo_trainer)
    theirs = re.findall(r"'(\w+)'", message[message.index("Unknown loss type") :].split("]")[0])
    assert set(theirs) == set(get_args(LossType)), "trl's losses are not those of recipe/dpo.py"


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_every_loss_takes_a_step(build, loss_type):
    trainer, figures = build(2, loss_type=[loss_type], label_smoothing=0.01 if loss_type in SMOOTHED else 0.0)
    before = weights_hash(trainer.model)
    trainer.train()
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows_of(figures))
    assert weights_hash(trainer.model) != before


def test_losses_add_up(build):
    losses = []
    for loss_type in (["sigmoid"], ["sft"], ["sigmoid", "sft"]):
        trainer, figures = build(1, loss_type=loss_type)
        trainer.train()
        losses.append(rows_of(figures)[0]["loss"])
    assert losses[2] == pytest.approx(losses[0] + losses[1], abs=1e-4)


def test_smoothing_that_nothing_reads_is_a_fault():
    for wrong in ({"label_smoothing": 0.1}, {"loss_type": ["exo_pair"]}, {"loss_type": ["ipo", "ipo"]}):
        with pytest.raises(ValueError) as error:
            make_section(**wrong)
        assert isinstance(error.value.errors()[0]["ctx"]["error"], FieldError)


def test_held_out_pairs_are_judged_all_and_alike(build):
    held = {"v": make_pairs(7, seed=3)}
    trainer, figures = build(30, held_out=held, eval_every=10, pairs=make_pairs(60), beta=0.5)
    state = torch.get_rng_state()
    first = trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), state)
    assert first["eval/v/margin"] == pytest.approx(0, abs=1e-5)
    trainer.train()
    last, again = trainer.evaluate(), trainer.evaluate()
    assert last == again
    assert last["eval/v/accuracy"] >= 5 / 7 and last["eval/v/margin"] > 0.1
    ratios = last["eval/v/chosen_log_ratio"] - last["eval/v/rejected_log_ratio"]
    assert last["eval/v/margin"] == pytest.approx(0.5 * ratios)
    logged = [row for row in figures.rows if "eval_v/margin" in row]  # the names that trackers turn into eval/v/...
    assert len(logged) == 6 and all(row.keys() == {key.replace("/", "_", 1) for key in last} for row in logged)
    live, _ = build(1, held_out=held, reference="live")
    assert live.evaluate()["eval/v/margin"] == pytest.approx(0, abs=1e-5)
    trainer.section = trainer.section.model_copy(update={"micro_batch_size": 3})
    assert trainer.evaluate() == pytest.approx(last, abs=1e-5)


def test_equal_rewards_are_half_right(build):
    pair = {"prompt_ids": [1, 2], "chosen_ids": [3, 0], "rejected_ids": [3, 0]}
    trainer, _ = build(1, held_out={"v": [pair]})
    assert trainer.evaluate()["eval/v/accuracy"] == 0.5


@pytest.mark.parametrize("lora", [None, LoraSection(rank=4, dropout=0.2)])
def test_going_on_is_never_having_stopped(build, tmp_path, lora):
    pairs = make_pairs(16)
    unbroken, _ = build(4, 2, pairs, lora=lora, name="a")
    unbroken.train()
    stopped, _ = build(4, 2, pairs, lora=lora, name="b", stop=2)
    stopped.train()
    checkpoint = tmp_path / "b" / "checkpoints" / "checkpoint-2"
    assert not list((tmp_path / "b").rglob("README.md"))
    resumed, _ = build(4, 2, pairs, lora=lora, name="b")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for (name, a), b in zip(unbroken.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_how_a_batch_is_split_changes_nothing(build):
    pairs, ends = make_pairs(16), []
    for micro, accumulation in ((8, 1), (2, 4)):
        trainer, _ = build(2, accumulation, pairs, micro_batch_size=micro)
        trainer.train()
        ends.append(trainer.model.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=2e-5)


def test_gradient_checkpointing_changes_nothing(build):
    for lora in (None, LoraSection(rank=4, dropout=0.3)):
        losses = []
        for checkpointing in (False, True, "selective"):
            trainer, figures = build(3, gradient_checkpointing=checkpointing, lora=lora)
            trainer.train()
            layers = [m for m in trainer.model.modules() if isinstance(m, DecoderLayer)]
            assert all(m.gradient_checkpointing == bool(checkpointing) for m in layers)
            contexts = "context_fn" in layers[0]._gradient_checkpointing_func.keywords if checkpointing else False
            assert contexts == (checkpointing == "selective")
            losses.append([row["loss"] for row in rows_of(figures)])
        assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("lora", [None, LoraSection(rank=4)])
def test_muon_moves_what_learns_and_nothing_else(build, lora):
    muon = {"kind": "muon", "learning_rate": 0.02, "adamw_learning_rate": 3e-3}
    trainer, _ = build(2, optimizer=muon, lora=lora)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    for name, p in trainer.model.named_parameters():
        assert p.requires_grad != torch.equal(p, before[name]), name


def test_nothing_is_sent_to_trls_makers(build, monkeypatch):
    def send(**_):
        raise AssertionError("telemetry")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", send)
    build(1)
