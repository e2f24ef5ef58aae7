"""Token files: what is written is what datatrove reads, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from datatrove.utils.dataset import DatatroveFileDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.shards import Shard, TokenWriter
from buddygpt.data.windows import TokenStream
from buddygpt.recipe.errors import BuddyError

END = 7


def write(root, documents, dtype="uint16"):
    writer = TokenWriter(root, "shards/a/train/00000.ds", dtype, END)
    for start in range(0, len(documents), 3):
        writer.write(documents[start : start + 3], text_bytes=10)
    return writer.finish()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(8, 2**16 - 1), max_size=9), min_size=1, max_size=20),
    st.sampled_from(["uint16", "uint32"]),
)
def test_documents_come_back(tmp_path_factory, documents, dtype):
    root = tmp_path_factory.mktemp("shard")
    record = write(root, documents, dtype)
    shard = Shard(record, root, dtype)
    expected = [token for document in documents for token in (*document, END)]
    assert shard.tokens.tolist() == expected and len(expected) == record.tokens
    assert shard.document_ends.tolist() == np.cumsum([len(d) + 1 for d in documents]).tolist()
    assert shard.document_ends.dtype == np.int64 and record.documents == len(documents)
    stream = TokenStream("a", [shard, shard], END)
    assert stream.read(0, len(stream))[0].tolist() == expected * 2
    assert record.check(root) == []


@pytest.mark.parametrize(("dtype", "size"), [("uint16", 2), ("uint32", 4)])
def test_datatrove_reads_it(tmp_path, dtype, size):
    documents = [[10, 11, 12], [13], [14, 15, 16, 17]]
    write(tmp_path, documents, dtype)
    reader = DatatroveFileDataset(
        str(tmp_path / "shards/a/train/00000.ds"), seq_len=10, token_size=size, return_positions=True
    )
    assert len(reader) == 1
    assert reader[0]["input_ids"].tolist() == [10, 11, 12, END, 13, END, 14, 15, 16, 17, END]
    assert reader[0]["positions"].tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4]
    index = (tmp_path / "shards/a/train/00000.ds.index").read_bytes()
    assert np.frombuffer(index, "<u8").tolist() == [4, 6, 11]


def test_an_id_too_large_for_the_dtype_is_refused(tmp_path):
    with pytest.raises(OverflowError):
        write(tmp_path, [[151_645]])
    assert Shard(write(tmp_path, [[151_645]], "uint32"), tmp_path, "uint32").tokens[0] == 151_645


def test_a_shard_of_the_wrong_size_is_refused(tmp_path):
    record = write(tmp_path, [[8, 9]] * 5)
    with pytest.raises(BuddyError, match="not the 60 bytes written"):
        Shard(record, tmp_path, "uint32")
    path = tmp_path / record.path
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BuddyError, match=r"00000\.ds: missing, or not the 30 bytes written"):
        Shard(record, tmp_path, "uint16")
    assert "changed since it was written" in record.check(tmp_path)[0]
    path.unlink()
    assert "cannot be read" in record.check(tmp_path)[0]


def test_nothing_bears_the_name_before_it_is_whole(tmp_path):
    writer = TokenWriter(tmp_path, "shards/a/train/00000.ds", "uint16", END)
    writer.write([[8]], 1)
    assert not (tmp_path / "shards/a/train/00000.ds").exists()
    writer.discard()
    assert not list((tmp_path / "shards/a/train").iterdir())
