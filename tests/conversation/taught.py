"""Small models that were taught a few sentences, so that what they say is text and ends where it should."""

from __future__ import annotations

from pathlib import Path

import torch

from buddygpt.data.formats import Message
from buddygpt.data.prompts import chat_prompt
from buddygpt.data.tokenizer import DocumentEncoder, chat_ends, make_chat_tokenizer, train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

POEM = "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少？"
TAUGHT = {"你好": "你好！我是小伙伴。", "背诗": POEM}
SYSTEM, SWAPPED = "倒过来说。", {"你好": "。伴伙小是我！好你"}
"""Under this system message a question has another answer."""


def write_chat(folder: Path) -> None:
    """A chat model that knows `TAUGHT`, and `SWAPPED` under `SYSTEM`."""
    base = _tokenizer()
    tokenizer = make_chat_tokenizer(base)
    encoder = DocumentEncoder(tokenizer)
    end, _ = ends = chat_ends(tokenizer)
    talks = [([Message("user", q)], a) for q, a in TAUGHT.items()]
    talks += [([Message("system", SYSTEM), Message("user", q)], a) for q, a in SWAPPED.items()]
    # Also as second turns, so that a talk can go on.
    talks += [([*first, Message("assistant", a), *second], b) for first, a in talks for second, b in talks[:2]]
    rows = [(chat_prompt(tokenizer, encoder, turns), [*encoder.encode([a])[0], end]) for turns, a in talks]
    _write(folder, tokenizer, rows, list(ends))


def write_base(folder: Path) -> None:
    """A base model that knows `POEM`."""
    tokenizer = _tokenizer()
    eos = tokenizer.eos_token_id
    _write(folder, tokenizer, [([eos], [*DocumentEncoder(tokenizer).encode([POEM])[0], eos])], eos)


def _tokenizer():
    return train_tokenizer([*TAUGHT, *TAUGHT.values(), SYSTEM, *SWAPPED.values()] * 3, 360)


def _write(folder, tokenizer, rows, ends) -> None:
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, max_position_embeddings=256,
        num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        eos_token_id=ends, pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )  # fmt: skip
    model = BuddyGPTForCausalLM(config)
    longest = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -100)
    for i, (prompt, reply) in enumerate(rows):
        ids[i, : len(prompt) + len(reply)] = torch.tensor([*prompt, *reply])
        labels[i, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(150):
        logits = model(ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    model.generation_config.eos_token_id = ends
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
