"""A trimmed model's rows under the ids of the full vocabulary."""

import pytest
import torch

from buddygpt.model.scatter import scatter

KEPT = [0, 1, 2, 5, 7, *range(40, 132)]
"""Of 140 ids, those of the 97 rows."""
OTHERS = [token for token in range(140) if token not in KEPT]
IDLE = [90, 91, 92]


@pytest.mark.parametrize("variant", ["gqa", "mqa-untied", "mla-moe"])
@torch.no_grad()
def test_kept_tokens_keep_their_logits_and_no_other_is_the_highest(make, variant):
    narrow = make(variant)
    wide = scatter(narrow, KEPT, 140, IDLE)
    ids, kept = torch.randint(97, (2, 24)), torch.tensor(KEPT)
    before, after = narrow(ids).logits, wide(kept[ids]).logits
    torch.testing.assert_close(after[..., kept], before, rtol=0, atol=1e-5)
    assert torch.equal(after.argmax(-1), kept[before.argmax(-1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kept_rows_and_ends_move_as_they_are(make, dtype):
    narrow = make("mqa-untied", eos_token_id=[4, 6], pad_token_id=5, bos_token_id=None).to(dtype)
    narrow.generation_config.eos_token_id = 6
    wide = scatter(narrow, KEPT, 140, IDLE)
    assert wide.config.vocab_size == 140 and narrow.config.vocab_size == 97 and wide.dtype == dtype
    ends = [getattr(wide.config, f"{name}_token_id") for name in ("eos", "pad", "bos")]
    assert ends == [[7, 41], 40, None]
    assert (wide.generation_config.eos_token_id, narrow.generation_config.eos_token_id) == (41, 6)
    for table in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(wide, table)().weight[KEPT], getattr(narrow, table)().weight)


@torch.no_grad()
def test_all_other_tokens_have_the_mean_row_of_the_idle_ones(make):
    for variant in ("gqa", "mqa-untied"):
        narrow = make(variant)
        wide = scatter(narrow, KEPT, 140, IDLE)
        for table in ("get_input_embeddings", "get_output_embeddings"):
            rows, wider = getattr(narrow, table)().weight, getattr(wide, table)().weight
            expected = rows[IDLE].mean(0).expand(len(OTHERS), -1)
            torch.testing.assert_close(wider[OTHERS], expected, rtol=0, atol=1e-7)
        tied = wide.get_input_embeddings().weight is wide.get_output_embeddings().weight
        assert tied == narrow.config.tie_word_embeddings
