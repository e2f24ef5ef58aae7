"""Talks that are longer than a window: no answer lost, none learned twice, each behind a prompt that is one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.formats import Message
from buddygpt.data.lengths import CUT, SHORTENED, SPLIT, Openings, cut_talk, shorten_prompt
from buddygpt.data.prompts import chat_prompt
from buddygpt.data.template import ANSWER, ANSWER_START, chat_segments
from tests.data.talk_strategies import TALKS, pairs

LENGTHS = st.one_of(st.integers(2, 24), st.integers(12, 400))


@pytest.fixture(scope="module")
def openings(chat_encoder):
    return Openings.of(chat_encoder)


def answers_of(labels):
    edges = np.flatnonzero(np.diff(np.concatenate(([0], labels == ANSWER, [0]))))
    return edges.reshape(-1, 2).tolist()


def tokens_of(piece):
    return np.concatenate([np.arange(*part) for part in piece.ranges])


def begins(ids, opening, at=0):
    return list(ids[at : at + len(opening)]) == opening


@given(TALKS, LENGTHS)
@settings(deadline=None, max_examples=400)
def test_every_answer_is_learned_once_behind_a_prompt(
    chat_tokenizer, chat_encoder, openings, make_talk_shard, talk, length
):
    ids, labels = make_talk_shard(talk).document(0)
    counts: Counter[str] = Counter()
    pieces = cut_talk(ids, labels, length, openings, counts)
    answers = answers_of(labels)
    system = openings.system_turn(ids)
    assert bool(system) == (talk[0].role == "system")
    learned_in: dict[int, list[np.ndarray]] = {}
    shortened = cut = False
    for number, piece in enumerate(pieces):
        places = tokens_of(piece)
        own = ids[places]
        assert len(places) == piece.size <= length and np.all(np.diff(places) > 0)
        learned = [int(p) for p in places if labels[p] == ANSWER and p >= piece.learned]
        assert learned and learned[0] != places[0], "nothing to learn, or nothing before it"
        for i, (start, stop) in enumerate(answers):
            if found := [p for p in learned if start <= p < stop]:
                learned_in.setdefault(i, []).append(np.array(found))
        last = next((start, stop) for start, stop in answers if start <= places[-1] < stop)
        if length <= openings.frame:
            shortened = True
            cut = cut or places[-1] + 1 < last[1]
            continue
        # What stands there is a talk: whole turns, the answer at its end.
        marks = chat_tokenizer.decode(own.tolist())
        assert own[0] == openings.user[0]
        for start, _ in [a for a in answers if a[0] in set(learned)]:
            at = int(np.flatnonzero(places == start)[0])
            assert begins(own, openings.assistant, at - len(openings.assistant)), marks
        turns = openings.turns(own)
        assert not openings.is_answer(own, turns[0]) and openings.is_answer(own, turns[-1])
        for turn in turns[1:]:
            assert own[turn - 1 - len(openings.apart)] == openings.end
            assert begins(own, openings.apart, turn - len(openings.apart))
        assert np.count_nonzero(own == openings.end) == len(turns) - (last[1] - 1 != places[-1])
        # Where it begins.
        if system and 4 * system <= length and length >= 4 * openings.frame:
            assert np.array_equal(places[:system], np.arange(system))
        body = system if system and begins(places, list(range(system))) else 0
        assert begins(own, openings.user, body) or begins(own, openings.system, body)
        # What is whole, is what a chat would have asked.
        first = next(i for i, (start, _) in enumerate(answers) if start == piece.learned)
        said = [i for i, message in enumerate(talk) if message.role == "assistant"]
        asked = max(i for i in range(said[first]) if talk[i].role == "user")
        head = [m for m in talk[:1] if m.role == "system" and (number == 0 or 2 * system <= length)]
        prompt = chat_prompt(chat_tokenizer, chat_encoder, [*head, *talk[asked : said[first]]])
        if begins(own, prompt):
            assert own[body + len(openings.user)] != openings.tool
        else:
            shortened = True
            assert len(prompt) + answers[first][1] - answers[first][0] > length
        cut = cut or places[-1] + 1 < last[1]
    for i, (start, stop) in enumerate(answers):
        assert len(learned_in[i]) == 1, "an answer in two pieces"
        (found,) = learned_in[i]
        assert np.array_equal(found, np.arange(start, start + len(found))) and len(found) >= 1
        assert len(found) == stop - start or (counts[CUT] and found[-1] < stop - 1)
    assert counts[CUT] == cut and counts[SPLIT] == (len(pieces) > 1)
    assert counts[SHORTENED] == shortened or length <= openings.frame
    if len(ids) <= length:
        assert [piece.ranges for piece in pieces] == [((0, len(ids)),)] and not counts


def words(count, letter="b"):
    """So many tokens."""
    return letter * count


def test_a_prompt_of_eighty_tokens_and_an_answer_of_five_at_length_64(chat_encoder, openings, make_talk_shard):
    unsaid = len(openings.user) + 1 + len(openings.apart) + len(openings.assistant)
    talk = [Message("user", words(80 - unsaid)), Message("assistant", words(4, "c"))]
    ids, labels = make_talk_shard(talk).document(0)
    assert len(ids) == 85 and (labels == ANSWER).sum() == 5
    counts: Counter[str] = Counter()
    (piece,) = cut_talk(ids, labels, 64, openings, counts)
    opening = len(openings.user)
    assert piece.ranges == ((0, opening), (85 - 64 + opening, 85)) and piece.size == 64
    assert counts == {SHORTENED: 1}


def test_an_answer_too_long_ends_in_ordinary_text_and_leaves_its_prompt_whole(openings, make_talk_shard):
    talk = [Message("user", "b"), Message("assistant", words(100, "c"))]
    ids, labels = make_talk_shard(talk).document(0)
    counts: Counter[str] = Counter()
    (piece,) = cut_talk(ids, labels, 64, openings, counts)
    assert piece.ranges == ((0, 64),) and counts == {CUT: 1}
    assert ids[63] != openings.end and labels[63] == ANSWER


def test_a_system_turn_of_half_the_length_leaves_the_answer_its_opening(openings, make_talk_shard):
    """Before an answer stands the assistant's opening, whatever else has to go."""
    system = Message("system", words(26))
    talk = [system, Message("user", words(30)), Message("assistant", words(60, "c"))]
    ids, labels = make_talk_shard(talk).document(0)
    assert 2 * openings.system_turn(ids) > 60
    counts: Counter[str] = Counter()
    (piece,) = cut_talk(ids, labels, 64, openings, counts)
    own = ids[tokens_of(piece)].tolist()
    start = own.index(ids[np.flatnonzero(labels == ANSWER)[0]], 10)
    assert own[start - len(openings.assistant) : start] == openings.assistant
    assert own[: len(openings.user)] == openings.user and counts == {SHORTENED: 1, CUT: 1}


def test_whole_exchanges_share_a_piece_behind_the_system_turn(chat_tokenizer, chat_encoder, openings, make_talk_shard):
    system = Message("system", "s")
    said = [m for n in range(6) for m in (Message("user", words(9)), Message("assistant", words(7, "c")))]
    ids, labels = make_talk_shard([system, *said]).document(0)
    counts: Counter[str] = Counter()
    pieces = cut_talk(ids, labels, 66, openings, counts)
    assert counts == {SPLIT: 1} and len(pieces) == 3
    for number, piece in enumerate(pieces):
        own = [system, *said[4 * number : 4 * number + 4]]
        assert ids[tokens_of(piece)].tolist() == make_talk_shard(own).document(0)[0].tolist()


CALL = '{"name": "f", "arguments": {}}'


def tool_talk(question=9, told=9, calls=2):
    said = [Message("user", words(question))]
    for _ in range(calls):
        said += [Message("assistant", "", "", (CALL,)), Message("tool", words(told, "t"))]
    return [*said, Message("assistant", words(7, "c"))]


def test_a_tools_turn_comes_with_its_question_and_what_was_called_is_read_only(
    chat_tokenizer, chat_encoder, openings, make_talk_shard
):
    talk = tool_talk(told=20, calls=3)
    ids, labels = make_talk_shard(talk).document(0)
    answers = answers_of(labels)
    length = len(ids) - 5
    counts: Counter[str] = Counter()
    first, second = cut_talk(ids, labels, length, openings, counts)
    assert first.ranges == ((0, answers[2][1]),) and first.learned == answers[0][0]
    assert counts == {SPLIT: 1, SHORTENED: 1}
    assert second.learned == answers[3][0] and second.size <= length
    assert ids[tokens_of(second)][: len(openings.user) + 1].tolist() == ids[: len(openings.user) + 1].tolist()


def test_an_exchange_with_tools_is_not_torn_where_it_fits_a_piece_of_its_own(openings, make_talk_shard):
    before = [Message("user", words(9)), Message("assistant", words(30, "c"))]
    ids, labels = make_talk_shard([*before, *tool_talk(calls=1)]).document(0)
    (_, stop), (call, called), _ = answers_of(labels)
    length = called + 2  # the call would fit
    assert len(ids) - stop < length < len(ids)
    first, second = cut_talk(ids, labels, length, openings, Counter())
    assert first.ranges == ((0, stop),)
    assert second.ranges == ((stop + len(openings.apart), len(ids)),) and second.learned == call


def test_a_long_system_turn_gives_way_from_its_left_before_a_question_that_fits(openings, make_talk_shard):
    talk = [Message("system", words(100)), Message("user", words(9)), Message("assistant", words(7, "c"))]
    ids, labels = make_talk_shard(talk).document(0)
    (piece,) = cut_talk(ids, labels, 64, openings, Counter())
    opening = len(openings.system)
    assert piece.ranges == ((0, opening), (len(ids) - 64 + opening, len(ids)))


@given(pairs(), LENGTHS)
@settings(deadline=None, max_examples=200)
def test_a_shortened_prompt_is_one(chat_tokenizer, chat_encoder, openings, pair, room):
    """Whole turns but for the first one, which keeps its opening; as many of the newest exchanges as there is room."""
    (ids,) = chat_encoder.encode_segments([[*chat_segments(pair.prompt), *ANSWER_START]])
    kept = shorten_prompt(ids, room, openings)
    places = np.concatenate([np.arange(*part) for part in kept])
    own = [ids[p] for p in places]
    assert len(own) <= room and np.all(np.diff(places) > 0) and places[-1] == len(ids) - 1
    if len(ids) <= room:
        assert own == ids
    elif room >= openings.frame:
        assert begins(own, openings.user) or begins(own, openings.system)
        turns = openings.turns(own)
        assert turns[-1] == len(own) - len(openings.assistant) and len(turns) > 1
        system = openings.system_turn(ids)
        head = system if system <= min(room // 2, room - openings.frame) else 0
        assert own[:head] == ids[:head]
        starts = openings.exchanges(ids)
        whole = [s for s in starts if head + len(ids) - s <= room]
        if whole:
            assert set(range(whole[0], len(ids))) <= set(places.tolist())
        else:
            assert len(own) > room - openings.frame - 200 or len(turns) == 2
    else:
        assert own == ids[-room:]
