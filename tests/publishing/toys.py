"""A finished run that is small enough to be published in a test, exported once."""

from __future__ import annotations

from pathlib import Path

import torch

from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.exported import see_exported

RECIPE = """
schema: 1
name: mountains
model:
  vocab_size: 300
  hidden_size: 32
  num_hidden_layers: 1
  max_position_embeddings: 64
  attention: {kind: gqa, num_attention_heads: 2, num_key_value_heads: 1}
  mlp: {kind: dense, intermediate_size: 32}
tokenizer: {train: 300}
data: {sources: [{kind: demo}], validation: 0.1}
"""


def write_run(runs: Path) -> Path:
    """The run `mountains`, whose base model has finished, with its export; gives the model's folder."""
    tokenizer = train_tokenizer(["春眠不觉晓，处处闻啼鸟。" * 3], 270)
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=270, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    chapter = runs / "mountains" / "pretrain"
    BuddyGPTForCausalLM(config).save_pretrained(chapter / "model")
    tokenizer.save_pretrained(chapter / "model")
    (runs / "mountains" / "recipe.yaml").write_text(RECIPE, "utf-8")
    (chapter / "done.json").write_text("{}")
    see_exported(chapter / "model", runs / "mountains" / "export" / "hf", tokenizer, silent)
    return chapter / "model"
