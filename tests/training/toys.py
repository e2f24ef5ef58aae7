"""Each kind of training on a model so small that a step takes milliseconds, put together as the stages do."""

from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, set_seed

from buddygpt.data.windows import Mixture, Passing, StreamWindows, TokenStream, evaluation_windows
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.cost import as_section
from buddygpt.training import chapter
from buddygpt.training.dpo import DPOTrainer
from buddygpt.training.facts import Work
from buddygpt.training.pace import pretraining_pace, tuning_pace
from buddygpt.training.setup import find_device
from buddygpt.training.sft import SFTTrainer
from buddygpt.training.trainer import HeldOut, PretrainTrainer
from tests.training.kept import Listed

OPTIMIZER = {"kind": "adamw", "learning_rate": 1e-2}
TRAINING = {"optimizer": OPTIMIZER, "schedule": {"kind": "wsd", "warmup": 0.25}, "precision": "fp32", "eval_every": 2}
PRETRAIN = TRAINING | {
    "tokens": 4 * 64, "tokens_per_batch": 64, "sequence_length": 16, "micro_batch_size": 4, "save_every": 2,
}  # fmt: skip
TUNING = TRAINING | {"data": {"sources": [{"kind": "demo"}]}, "batch_size": 4, "micro_batch_size": 4, "save_every": 2}
WIDTHS = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 32, "intermediate_size": 24,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2,
}  # fmt: skip
EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 8, "router_aux_loss_coef": 0.01,
}  # fmt: skip


class Shard:
    """Tokens at random, a document of each seven."""

    def __init__(self, seed, tokens):
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(1, 60, tokens).astype(np.uint16)
        self.document_ends = np.arange(7, tokens + 1, 7)
        self.tokens[self.document_ends - 1] = 0


def make_tokenizer():
    """A character for each id."""
    letters = {chr(0x4E00 + i): i + 1 for i in range(63)}
    tokenizer = Tokenizer(models.WordLevel({"<e>": 0, **letters}, "<e>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", pad_token="<e>")


def make_model(section, **changes):
    """Drawn by the section's seed."""
    set_seed(section.seed)
    return BuddyGPTForCausalLM(BuddyGPTConfig(**WIDTHS | changes, attn_implementation=section.attn_implementation))


def _watch(name, folder, section, model, pace, order, emit, prompts, start=None):
    work = Work(name, as_section(model.config), section, WIDTHS["max_position_embeddings"], True, find_device())
    recipe = SimpleNamespace(as_dict=dict)
    return chapter.watch(folder, recipe, work, pace, {}, start, order, prompts, make_tokenizer(), emit)


def pretraining(
    folder, section, emit=silent, prompts=(), start=None, order=lambda mixture, _: Passing(mixture), **model
):
    """A trainer and its watchers; `order` makes of a mixture and the section what is trained on."""
    pace = pretraining_pace(section, find_device().processes)
    source = StreamWindows(TokenStream("s", [Shard(0, 1000)], 0), section.sequence_length)
    count = section.steps * section.tokens_per_batch // section.sequence_length
    windows = Mixture([source], [1.0], count, section.seed)
    held, stop = evaluation_windows(TokenStream("v", [Shard(1, 200)], 0), section.sequence_length, 150)
    drawn = make_model(section, **model)
    watch = _watch("pretrain", folder, section, drawn, pace, order(windows, section), emit, prompts, start)
    trainer = PretrainTrainer(
        drawn, make_tokenizer(), section, watch.keeper,
        [HeldOut("v", held, stop, 2 * stop)], watch.callbacks(), pace,
    )  # fmt: skip
    return trainer, watch


def _talk(draw, longest):
    """A window of one talk: its second half is learned."""
    ids = draw.integers(1, 64, draw.integers(6, longest)).astype(np.int64)
    labels = np.concatenate([ids[1:], [0]])
    labels[: len(ids) // 2] = -100
    return {"input_ids": ids, "shift_labels": labels, "position_ids": np.arange(len(ids))}


def fine_tuning(folder, section, emit=silent, prompts=(), **model):
    """A trainer and its watchers, over talks of many lengths."""
    draw = np.random.default_rng(0)
    talks = [_talk(draw, 24) for _ in range(16)]
    pace = tuning_pace(section, "sft", len(talks), 1, lambda done: 20 * done)
    order = np.random.default_rng(section.seed).permutation(16)
    drawn = make_model(section, **model)
    watch = _watch("sft", folder, section, drawn, pace, Passing(Listed([talks[i] for i in order])), emit, prompts)
    held = [_talk(draw, 24) for _ in range(4)]
    trainer = SFTTrainer(
        drawn, make_tokenizer(), section, watch.keeper,
        [HeldOut("v", held, sum(int((t["shift_labels"] != -100).sum()) for t in held), 50)], watch.callbacks(), pace,
    )  # fmt: skip
    return trainer, watch


def _pair(draw):
    sides = [[*draw.integers(1, 63, draw.integers(1, 10)).tolist(), 0] for _ in range(2)]
    return {"prompt_ids": draw.integers(1, 63, draw.integers(2, 10)).tolist(), "chosen_ids": sides[0],
            "rejected_ids": sides[1]}  # fmt: skip


def preferring(folder, section, emit=silent, prompts=(), **model):
    """A trainer and its watchers, over pairs of many lengths."""
    draw = np.random.default_rng(0)
    pairs = [_pair(draw) for _ in range(16)]
    pace = tuning_pace(section, "dpo", len(pairs), 1, lambda done: 20 * done)
    order = np.random.default_rng(section.seed).permutation(16)
    drawn = make_model(section, **model)
    watch = _watch("dpo", folder, section, drawn, pace, Passing(Listed([pairs[i] for i in order])), emit, prompts)
    trainer = DPOTrainer(
        drawn, make_tokenizer(), section, watch.keeper, {"v": [_pair(draw) for _ in range(4)]},
        watch.callbacks(), pace, folder / "scores", emit,
    )  # fmt: skip
    return trainer, watch
