from collections import Counter, defaultdict

import pytest

from buddygpt.data.demo import dialogues, held_out, multiple_choice, preference_pairs, prompts, questions, world
from buddygpt.data.demo.split import FAMILY, SPLITS, twins
from buddygpt.data.demo.wordings import WORDINGS

SEEDS = range(3)


def leaks(items, seed: int) -> set[str]:
    """The forms in which items about somebody give away a held-out fact: its other half stands in the text.

    This reads the words, not what the generator says about them; a value within a longer word does not count.
    """
    town = world(seed)
    names = {name for fact in town.facts for name in (fact.subject, fact.value)}
    secrets = defaultdict(set)
    for fact in held_out(seed):
        secrets[fact.subject].add(fact.value)
        secrets[fact.value].add(fact.subject)
    longer = {word: [name for name in names if word in name and word != name] for word in names}
    forms = set()
    for item in items:
        for subject in {fact.subject for fact in item.facts}:
            for secret in secrets[subject]:
                text = "，".join(message["content"] for message in item.messages)
                for name in longer[secret]:
                    text = text.replace(name, "")
                if secret in text:
                    forms.add(item.form)
    return forms


@pytest.mark.parametrize("split", SPLITS)
def test_questions_are_a_function_of_the_seed(split):
    for make in (dialogues, preference_pairs, multiple_choice):
        assert make(0, split) == make(0, split) != make(1, split)
    assert prompts(0) == prompts(0) != prompts(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_about_three_in_ten_facts_are_held_out(seed):
    facts = world(seed).facts
    held = held_out(seed)
    assert 0.28 < len(held) / len(facts) < 0.32
    sizes, taken = Counter(fact.relation for fact in facts), Counter(fact.relation for fact in held)
    assert all(0.25 <= taken[relation] / sizes[relation] <= 0.41 for relation in sizes)


@pytest.mark.parametrize("seed", SEEDS)
def test_facts_that_say_the_same_are_held_out_together(seed):
    town, held = world(seed), held_out(seed)
    for fact in town.facts:
        assert all((twin in held) == (fact in held) for twin in twins(town, fact))


def test_mirrors_lead_back():
    town = world(0)
    with_twins = {fact.relation for fact in town.facts if twins(town, fact)}
    assert with_twins == {"spouse", "father", "mother", "son", "daughter", "east", "west", "home"}
    for fact in town.facts:
        assert all(fact in twins(town, twin) for twin in twins(town, fact))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_held_out_is_revealed_in_training(seed):
    assert not leaks(dialogues(seed, "train"), seed)


def test_the_search_for_leaks_finds_them_in_every_form(monkeypatch):
    monkeypatch.setattr(questions, "in_split", lambda *_: True)
    assert leaks(dialogues(0, "train"), 0) == {"short", "sentence", "yes", "no", "reverse", "turns"}


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_and_choices_keep_to_their_split(seed):
    for make in (preference_pairs, multiple_choice):
        assert {item.fact for item in make(seed, "test")} == held_out(seed)
        assert {item.fact for item in make(seed, "train")} == {*world(seed).facts} - held_out(seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split", SPLITS)
def test_dialogues_are_well_formed(seed, split):
    items = dialogues(seed, split)
    assert len({str(item.messages) for item in items}) == len(items)
    for item in items:
        assert [message["role"] for message in item.messages] == ["user", "assistant"] * (len(item.messages) // 2)
        assert item.answer in item.reply and item.question.endswith("？")
        assert (item.answer in item.question) == (item.form == "yes")
    assert {item.form for item in items} == {"short", "sentence", "yes", "no", "reverse", "turns"}


def test_a_test_conversation_ends_on_what_is_held_out():
    for item in dialogues(0, "test"):
        if item.form == "turns":
            assert [fact in held_out(0) for fact in item.facts] == [False] * (len(item.facts) - 1) + [True]
            assert all(item.facts[0].subject not in message["content"] for message in item.messages[2:])


def test_a_reverse_question_has_one_answer():
    town = world(0)
    for split in SPLITS:
        for item in dialogues(0, split):
            if item.form == "reverse":
                wanted = {(fact.relation, fact.value) for fact in item.facts}
                fitting = [s for s, fs in town.facts_about.items() if wanted <= {(f.relation, f.value) for f in fs}]
                assert fitting == [item.answer]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split", SPLITS)
def test_no_answer_is_common(seed, split):
    items = dialogues(seed, split)
    by_relation = defaultdict(Counter)
    for item in items:
        relation = item.facts[-1].relation
        by_relation["reverse " + relation if item.form == "reverse" else relation][item.answer] += 1
    for relation, answers in by_relation.items():
        if len(answers) >= 8:
            assert max(answers.values()) <= 0.15 * answers.total(), relation
    overall = Counter(item.answer for item in items)
    assert max(overall.values()) <= 0.15 * overall.total()


@pytest.mark.parametrize("split", SPLITS)
def test_preference_pairs_differ_in_the_value_only(split):
    town = world(0)
    for pair in preference_pairs(0, split):
        assert pair.chosen.replace(pair.fact.value, "X") == pair.rejected.replace(pair.wrong, "X")
        assert pair.fact.value in pair.chosen and pair.wrong in pair.rejected and pair.wrong != pair.fact.value
        assert abs(len(pair.chosen) - len(pair.rejected)) <= 4
        assert pair.wrong not in {fact.value for fact in town.facts_about[pair.fact.subject]}
        assert pair.wrong in {fact.value for fact in town.facts if fact.relation == pair.fact.relation}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split", SPLITS)
def test_multiple_choice_is_well_formed_and_balanced(seed, split):
    town = world(seed)
    items = multiple_choice(seed, split)
    for item in items:
        assert len(item.choices) == len(set(item.choices)) == 4
        assert item.choices[item.answer] == item.fact.value
        assert set(item.choices) <= {fact.value for fact in town.facts if fact.relation == item.fact.relation}
    positions = Counter(item.answer for item in items)
    assert max(positions.values()) - min(positions.values()) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_surname_gives_no_relative_away(seed):
    for item in (*multiple_choice(seed, "train"), *multiple_choice(seed, "test")):
        if item.fact.relation in FAMILY:
            assert len({choice[0] == item.fact.subject[0] for choice in item.choices}) == 1


def test_every_relation_has_its_wording():
    assert set(WORDINGS) == {fact.relation for fact in world(0).facts}


@pytest.mark.parametrize("seed", SEEDS)
def test_prompts_are_unfinished_beginnings(seed):
    found = prompts(seed)
    assert len(found) == len(set(found)) == 4
    assert all(5 < len(prompt) < 40 and not prompt.endswith("。") and "{" not in prompt for prompt in found)
