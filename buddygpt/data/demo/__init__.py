"""A small Chinese town, invented from a seed: text to train on, and questions to which the answer is known.

Everything is a pure function of the seed, without a download: `world` holds the people, places, goods and
festivals with all facts; `paragraphs` tells them over and over in changing words; `dialogues`,
`preference_pairs` and `multiple_choice` ask for them. Facts that the "test" split asks for occur in the prose
like all others, but in no item of the "train" split, in whatever disguise.
"""

from buddygpt.data.demo.choices import MultipleChoice, PreferencePair, multiple_choice, preference_pairs, prompts
from buddygpt.data.demo.prose import paragraphs
from buddygpt.data.demo.questions import Dialogue, dialogues, examination
from buddygpt.data.demo.rows import pairs, talks
from buddygpt.data.demo.split import held_out
from buddygpt.data.demo.world import Fact, Festival, Good, Person, Place, World, world

__all__ = [
    "Dialogue",
    "Fact",
    "Festival",
    "Good",
    "MultipleChoice",
    "Person",
    "Place",
    "PreferencePair",
    "World",
    "dialogues",
    "examination",
    "held_out",
    "multiple_choice",
    "pairs",
    "paragraphs",
    "preference_pairs",
    "prompts",
    "talks",
    "world",
]
