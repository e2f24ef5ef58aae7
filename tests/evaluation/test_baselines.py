import pytest

from buddygpt.data.demo import Fact, dialogues, examination
from buddygpt.data.demo.questions import Dialogue
from buddygpt.evaluation.baselines import guess


def asks(question, answer, form="sentence", relation="home"):
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Dialogue(messages, form, (Fact("甲", relation, answer),), answer)


LEARNED = [
    asks("张三住在哪里？", "东街"),
    asks("李四住在哪里？", "西街"),
    asks("王五家住哪里？", "西街"),
    asks("王五爱吃什么？", "面", relation="food"),
]


def test_the_most_frequent_answer_is_that_of_the_relation():
    assert guess(LEARNED, [asks("赵六住在哪里？", "西街")]).frequent == 1.0
    assert guess(LEARNED, [asks("赵六住在哪里？", "东街")]).frequent == 0.0
    assert guess(LEARNED, [asks("赵六爱吃什么？", "面", relation="food")]).frequent == 1.0
    assert guess(LEARNED, [asks("谁住在西街？", "西街", form="reverse")]).frequent == 0.0


def test_the_nearest_question_gives_its_answer():
    assert guess(LEARNED, [asks("请问张三住在哪里？", "东街")]).nearest == 1.0
    assert guess(LEARNED, [asks("请问李四住在哪里？", "东街")]).nearest == 0.0
    assert guess(LEARNED, [asks("abc", "东街")]).nearest == 0.0
    half = guess(LEARNED, [asks("张三住在哪里呢？", "东街"), asks("王五爱吃什么呢？", "东街")])
    assert half.nearest == 0.5


def test_questions_that_hold_their_answer_are_left_out():
    told = asks("张三住在东街吗？", "东街", form="yes")
    assert guess(LEARNED, [told]) == guess(LEARNED, [])
    assert guess(LEARNED, [told, asks("张三住在哪里呢？", "东街")]).nearest == 1.0


@pytest.mark.parametrize("seed", range(2))
def test_guessing_gets_nowhere_on_held_out_facts(seed):
    found = guess(dialogues(seed, "train"), examination(seed, "test")[:150])
    assert found.frequent <= 0.05 and found.nearest <= 0.05


def test_guessing_is_no_straw_man():
    """Where the fact was told in training, the nearest question finds much of it."""
    assert guess(dialogues(0, "train"), examination(0, "train")[:150]).nearest > 0.3
