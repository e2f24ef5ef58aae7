"""The exam of an extended context: as much as the device soon reads, equal for every model, kept in a file."""

import json
from types import SimpleNamespace

import pytest
import torch

from buddygpt.data.tokenizer import chat_ends, make_chat_tokenizer
from buddygpt.evaluation import reach
from buddygpt.evaluation.haystack import DEPTHS
from buddygpt.evaluation.positions import measure_positions
from buddygpt.evaluation.reach import OF_TALKS, ReachRecord, held_out_texts, make_exam
from buddygpt.model.context import as_before, extend
from buddygpt.model.cost import count_flops
from buddygpt.report.reach import BEFORE, EXTENDED, TUNED


@pytest.fixture(scope="module")
def chat(tokenizer):
    return make_chat_tokenizer(tokenizer)


def exam_of(chat, model, texts, old=64, new=256):
    return make_exam(chat, model, old, new, "a text", texts)


def test_windows_and_needles_follow_from_what_they_cost(chat, make, prose, monkeypatch):
    model = make()
    window = 256 * count_flops(model.config, 256).forward
    small = 2 * 2 * sum(n * count_flops(model.config, n).forward for n in (64, 256))
    whole = 2 * 5 * sum(n * count_flops(model.config, n).forward for n in (32, 64, 160, 256))
    found = []
    for operations in (0, 5 * window, max(whole, 5 * window), 3.5 * whole, 1e15):
        monkeypatch.setattr(reach, "OPERATIONS", operations)
        exam = exam_of(chat, model, prose)
        depths = {n.depth for n in exam.needles}
        assert len(exam.needles) == exam.each * len({(n.length, n.depth) for n in exam.needles})
        assert depths == (set(DEPTHS) if operations >= whole else {0.0, 0.5})
        assert len(exam.passages) == max(2, min(32, int(operations / window)))
        found.append((operations, exam.each))
    assert found[0][1] == 1 and found[1][1] == max(1, min(10, int(5 * window / small)))
    assert found[3][1] == 3 and found[4][1] == 10


@pytest.mark.parametrize(("old", "new"), [(64, 256), (64, 80), (64, 100), (48, 500), (100, 225)])
def test_the_old_length_lies_between_two_ranges_or_a_little_after(chat, make, prose, old, new):
    model = make()
    exam = exam_of(chat, model, prose, old, new)
    found = exam.take(model, "fp32")["positions"]
    width = found["edges"][1]
    assert any(old - width < edge <= old for edge in found["edges"]) and new - width < found["edges"][-1] <= new
    assert found["edges"][-1] > old


def test_windows_begin_as_texts_do_in_pretraining(chat, make, prose):
    exam = exam_of(chat, make(), prose)
    assert {passage.ids[0] for passage in exam.passages} == {chat_ends(chat)[1]}
    assert chat.eos_token_id == chat_ends(chat)[0]


def test_long_texts_are_read_by_themselves_short_ones_end_to_end(chat, make, prose):
    model, text = make(), "\n".join(prose[:30])
    alone = exam_of(chat, model, ["短。", text, "短。"])
    assert "短。" not in chat.decode(alone.passages[0].ids)
    together = exam_of(chat, model, prose)
    assert chat.decode(together.passages[0].ids[1:]).startswith("\n".join(prose[:2])[:50])


def test_too_little_text_is_told_and_nothing_is_measured(chat, make):
    model = make()
    exam = exam_of(chat, model, ["春眠不觉晓。"])
    assert exam.take(model, "fp32") == {"positions": None, "needles": None}
    assert exam.each == 0 and "a text: positions: two windows of 256 tokens are needed" in exam.notes[0]
    assert "the filler has" in exam.notes[1]


def test_the_record_keeps_what_was_measured(chat, make, prose, tmp_path):
    model, file = make(), tmp_path / "context.json"
    exam = exam_of(chat, model, prose)
    record = ReachRecord(file, exam, "linear", resumed=False)
    was = model.config.max_position_embeddings, model.config.rope_parameters
    extend(model, 1024)
    with as_before(model, *was):
        record.measure(BEFORE, model, "fp32")
        expected = measure_positions(model, exam.passages, buckets=exam.ranges, precision="fp32")
    record.measure(EXTENDED, model, "fp32")
    told = json.loads(file.read_text("utf-8"))
    assert told["models"][BEFORE]["positions"]["nats"] == pytest.approx(expected.nats, rel=1e-5)
    assert told["models"][EXTENDED]["positions"]["nats"] != told["models"][BEFORE]["positions"]["nats"]

    on = ReachRecord(file, exam, "linear", resumed=True)
    on.measure(BEFORE, None, "fp32")  # known: no model is asked
    on.measure(TUNED, model, "fp32")
    page = on.page()
    assert list(page.models) == [BEFORE, EXTENDED, TUNED] and (page.old, page.new, page.scaling) == (64, 256, "linear")
    assert page.windows == len(exam.passages) and page.needles == exam.each
    assert page.models[BEFORE].old_bits == pytest.approx(expected.between(0, 64), rel=1e-5)
    assert page.models[BEFORE].new_bits == pytest.approx(expected.between(64, 256), rel=1e-5)
    assert page.change == pytest.approx(page.models[TUNED].old_bits / page.models[BEFORE].old_bits - 1)
    assert page.models[BEFORE].new_found == 0.0 and page.models[TUNED] == page.models[EXTENDED]
    with pytest.raises(AttributeError):
        ReachRecord(file, exam, "linear", resumed=False).measure(BEFORE, None, "fp32")  # of an earlier try


class Talks:
    """Held-out talks as the stage has them."""

    def __init__(self, ids):
        self.talks, self.documents = len(ids), SimpleNamespace(read=lambda number: (torch.tensor(ids[number]), None))


def test_without_text_of_pretraining_talks_are_read(chat, tmp_path):
    ids = chat.apply_chat_template([{"role": "user", "content": "春眠不觉晓"}], return_dict=False)
    what, texts = held_out_texts(tmp_path, [Talks([ids] * 5), Talks([ids])], chat, 8)
    assert what == OF_TALKS and len(texts) == 6 and "春眠不觉晓" in texts[0] and "<|im_start|>" not in texts[0]
    (tmp_path / "manifest.json").write_text("{", "utf-8")  # damaged: tuning goes on without it
    assert held_out_texts(tmp_path, [Talks([ids])], chat, 8)[0] == OF_TALKS
    many = held_out_texts(tmp_path, [Talks([ids] * 1000)], chat, 8)[1]
    assert 32 * 8 <= len(many) * len(ids) < 33 * 8 + len(ids)
