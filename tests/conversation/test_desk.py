"""Talks of several tabs over one model, without a browser."""

import threading
from contextlib import closing

import pytest

from buddygpt.conversation.desk import Desk
from buddygpt.events import Caution
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError
from tests.conversation.scripted import Scripted

PLAIN = Sampling(16, 0.5, 0.9, None)


@pytest.fixture
def seat():
    """A desk at which one talk is held."""

    def make(*script, **more):
        talk = Scripted(list(script), **more)

        def begin(emit):
            talk.emit = emit
            return talk

        return Desk(begin), talk

    return make


def last(replies):
    *_, pairs = replies
    return pairs


def test_a_reply_comes_in_and_the_talk_goes_on(seat):
    desk, talk = seat("你", "好", "。")
    assert next(desk.send("a", "在吗", "", PLAIN)) == [("在吗", "")]
    assert last(desk.send("a", "在吗", "", PLAIN)) == [("在吗", "你好。")]
    assert last(desk.send("a", "再说", "", PLAIN)) == [("在吗", "你好。"), ("再说", "你好。")]
    assert [m.content for m in talk.messages] == ["在吗", "你好。", "再说", "你好。"]


def test_stop_closes_the_reply_and_keeps_what_was_said(seat):
    desk, talk = seat("一", "二", lambda _: desk.stop("a"), "三", "四")
    assert last(desk.send("a", "数", "", PLAIN)) == [("数", "一二三")]
    assert talk.closed == ["一二三"]
    assert [m.content for m in talk.messages] == ["数", "一二三"]
    talk.script = ["好"]
    assert last(desk.send("a", "还在吗", "", PLAIN))[-1] == ("还在吗", "好")


def test_a_listener_who_goes_away_closes_the_reply_and_frees_the_seat(seat):
    desk, talk = seat("一", "二", "三")
    with closing(desk.send("a", "数", "", PLAIN)) as replies:
        next(replies)
    talk.script = ["好"]
    assert last(desk.send("a", "还在吗", "", PLAIN)) == [("还在吗", "好")]


def test_a_reply_stopped_before_its_first_word_leaves_all_as_it_was(seat):
    desk, talk = seat("一")
    last(desk.send("a", "数", "", PLAIN))
    replies = desk.send("a", "再数", "", PLAIN)
    next(replies)
    desk.stop("a")
    assert last(replies) == [("数", "一")] == desk.shown("a")
    assert len(talk.messages) == 2


def test_a_button_pressed_in_the_middle_of_a_reply_ends_it_first(seat):
    desk, talk = seat("一", *["。"] * 10_000_000)
    done = threading.Thread(target=lambda: last(desk.send("a", "数", "", PLAIN)))
    done.start()
    while not desk.shown("a"):
        pass
    assert desk.undo("a") == ("数", [])
    done.join(10)
    assert not done.is_alive() and talk.messages == [] and desk.shown("a") == []


def test_a_text_that_is_refused_leaves_the_talk_as_it_was(seat):
    desk, talk = seat(BuddyError("too long"))
    with pytest.raises(BuddyError, match="too long"):
        last(desk.send("a", "长", "", PLAIN))
    talk.script = ["好"]
    assert last(desk.send("a", "短", "", PLAIN)) == [("短", "好")]


@pytest.mark.parametrize("converses", [True, False])
def test_retry_takes_the_place_of_the_last_reply_and_moves_the_seed(seat, converses):
    desk, talk = seat("一", converses=converses)
    seeded = Sampling(16, 0.5, 0.9, 40)
    last(desk.send("a", "数", "", seeded))
    last(desk.send("a", "再数", "", seeded))
    talk.script = ["二"]
    for _ in range(2):
        assert last(desk.retry("a", "", seeded)) == [("数", "一"), ("再数", "二")]
    assert [text for text, *_ in talk.asked] == ["数", "再数", "再数", "再数"]
    moved = 1 if converses else 0  # a talk's own retry adds one
    assert [sampling.seed for *_, sampling in talk.asked] == [40, 40, 41 - moved, 42 - moved]
    last(desk.send("a", "三", "", seeded))
    assert talk.asked[-1][2].seed == 40


def test_retry_undo_and_clear_of_an_empty_talk_do_nothing(seat):
    desk, _ = seat("一")
    assert list(desk.retry("a", "", PLAIN)) == []
    assert desk.undo("a") == ("", [])
    desk.clear("a")
    desk.stop("a")
    assert last(desk.send("a", "数", "", PLAIN)) == [("数", "一")]


def test_another_system_message_keeps_the_turns(seat):
    desk, talk = seat("一")
    last(desk.send("a", "数", "你是老师。", PLAIN))
    last(desk.send("a", "再数", "你是诗人。", PLAIN))
    assert [(m.role, m.content) for m in talk.messages[:2]] == [("system", "你是诗人。"), ("user", "数")]
    last(desk.send("a", "三", "", PLAIN))
    assert [m.role for m in talk.messages] == ["user", "assistant"] * 3
    desk.clear("a")
    assert talk.messages == [] == desk.shown("a")


def test_what_a_talk_tells_is_told_once(seat):
    desk, _ = seat("一", lambda talk: talk.emit(Caution("the context is full")))
    last(desk.send("a", "数", "", PLAIN))
    assert desk.cautions("a") == ["the context is full"]
    assert desk.cautions("a") == []


def test_tabs_have_talks_of_their_own_and_take_turns_at_the_model():
    inside, most = [], []

    def step(_):
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    talks = []

    def begin(emit):
        talks.append(Scripted([step, "。"] * 200))
        return talks[-1]

    desk = Desk(begin)
    threads = [threading.Thread(target=lambda t=t: last(desk.send(t, t, "", PLAIN))) for t in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(talks) == 4
    assert {t: desk.shown(t) for t in "abcd"} == {t: [(t, "。" * 200)] for t in "abcd"}


def test_a_tab_that_is_closed_ends_its_reply_and_is_forgotten(seat):
    desk, talk = seat("一", lambda _: desk.leave("a"), "二", "三")
    last(desk.send("a", "数", "", PLAIN))
    assert talk.closed == ["一二"]
    assert desk._seats == {}
