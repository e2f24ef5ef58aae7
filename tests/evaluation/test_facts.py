from buddygpt.data.demo import examination
from buddygpt.data.demo.rows import to_messages
from buddygpt.evaluation.facts import FORMS, examine

DIALOGUES = examination(0, "test")[:80]


def prompt(dialogue):
    return to_messages(dialogue.messages[:-1])


def test_a_model_that_says_what_is_right_is_all_exact_and_stops(tokenizer, scripted):
    facts = examine(scripted({prompt(d): d.reply for d in DIALOGUES}), tokenizer, DIALOGUES, 0)
    assert [answer.dialogue for answer in facts.answers] == DIALOGUES
    assert [answer.reply for answer in facts.answers] == [d.reply for d in DIALOGUES]
    assert (facts.known.exact, facts.stopped) == (1.0, 1.0)
    assert {form: facts.form(form).exact for form in FORMS} == dict.fromkeys(FORMS, 1.0)


def test_shares_count_what_is_wrong_by_form(tokenizer, scripted):
    wrong = {"short": "不知道", "no": "是的。"}
    model = scripted({prompt(d): wrong.get(d.form, d.reply) for d in DIALOGUES})
    facts = examine(model, tokenizer, DIALOGUES, 0)
    assert {form: facts.form(form).exact for form in FORMS} == {f: float(f not in wrong) for f in FORMS}
    asked = [d for d in DIALOGUES if d.form != "yes"]
    assert facts.known.questions == len(asked) == len(DIALOGUES) - facts.form("yes").questions
    assert facts.known.exact == sum(d.form not in wrong for d in asked) / len(asked)


def test_a_question_that_holds_its_answer_counts_for_no_fact(tokenizer, scripted):
    model = scripted({prompt(d): d.reply if d.form == "yes" else "不知道" for d in DIALOGUES})
    facts = examine(model, tokenizer, DIALOGUES, 0)
    assert (facts.known.exact, facts.form("yes").exact) == (0.0, 1.0)


def test_replies_that_go_on_have_not_stopped(tokenizer, scripted):
    model = scripted({prompt(d): "不知道..." if d.form == "turns" else d.reply for d in DIALOGUES})
    facts = examine(model, tokenizer, DIALOGUES, 0)
    assert facts.form("turns").stopped == 0.0 and facts.form("short").stopped == 1.0
    assert facts.stopped == 1 - facts.form("turns").questions / len(DIALOGUES)


def test_an_untrained_model_knows_nothing(tokenizer, tiny):
    facts = examine(tiny, tokenizer, DIALOGUES[:40], 0)
    assert facts.known.exact == 0.0


def test_no_questions_no_shares(tokenizer, tiny):
    facts = examine(tiny, tokenizer, [], 0)
    assert (facts.known.questions, facts.known.exact, facts.stopped) == (0, 0.0, 0.0)
