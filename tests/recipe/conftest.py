import pytest

BASE = """\
schema: 1
name: small
model:
  vocab_size: 512
  hidden_size: 64
  num_hidden_layers: 2
  max_position_embeddings: 128
  attention: {kind: gqa, num_attention_heads: 4, num_key_value_heads: 2}
  mlp: {kind: dense, intermediate_size: 96}
tokenizer: {train: 512}
data:
  sources: [{kind: demo}]
pretrain:
  tokens: 1M
  tokens_per_batch: 1Ki
  sequence_length: 64
  micro_batch_size: 4
  optimizer: {kind: adamw, learning_rate: 1e-3}
  schedule: {kind: cosine}
  save_every: 10
  eval_every: 10
"""


@pytest.fixture
def write(tmp_path):
    """Write a recipe, `BASE` with some of its text replaced, and give its path."""

    def writer(*replacements: tuple[str, str], name: str = "r.yaml", text: str = BASE):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return writer
