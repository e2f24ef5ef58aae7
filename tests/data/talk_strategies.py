"""Talks of all forms for hypothesis: with a system turn or none, several exchanges, tools, very short and very long."""

from __future__ import annotations

from hypothesis import strategies as st

from buddygpt.data.formats import Message, Pair

WORDS = st.sampled_from(["春", "a", "<|im_end|>", "<|im_start|>user\n", "user\n", "1\n2", "?", "<tool_response>"])
SHORT = st.lists(WORDS, min_size=1, max_size=4).map("".join).map(str.strip).filter(bool)
LONG = st.builds(lambda text, times: (text * times).strip(), SHORT, st.integers(1, 40))
SAID = st.one_of(SHORT, SHORT, LONG)


@st.composite
def exchanges(draw):
    """A question, perhaps calls of tools and what these say, and the answer."""
    said = [Message("user", draw(SAID))]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        said.append(Message("assistant", draw(st.one_of(st.just(""), SHORT)), "", ('{"name": "f", "arguments": {}}',)))
        said.append(Message("tool", draw(SAID)))
    reasoning = draw(st.one_of(st.just(""), st.just(""), SHORT))
    return [*said, Message("assistant", draw(SAID), reasoning)]


SYSTEMS = st.one_of(st.just([]), SAID.map(lambda text: [Message("system", text)]))
TALKS = st.builds(
    lambda system, said: [*system, *(message for exchange in said for message in exchange)],
    SYSTEMS,
    st.lists(exchanges(), min_size=1, max_size=5),
)


@st.composite
def pairs(draw):
    """Two answers after a talk."""
    prompt = [*draw(SYSTEMS), *(m for e in draw(st.lists(exchanges(), max_size=3)) for m in e), Message("user", "q")]
    chosen, rejected = draw(SAID), draw(SAID)
    return Pair(tuple(prompt), Message("assistant", chosen), Message("assistant", rejected + "2"))
