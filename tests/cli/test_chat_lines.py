"""What a chat is told: on terminals of several kinds, and in a pipe."""

import io
import json
import random
import signal
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.cli.history import KEPT, History
from buddygpt.cli.lines import decode, piped_lines
from tests.terminal import Terminal

PROGRAM = """
import json, sys
from buddygpt.cli.lines import Keyboard
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="replace")
told = open("told.jsonl", "w", encoding="utf-8")
def tell(text):
    print(text, "OK", file=sys.stderr)
with Keyboard(["/reset", "/retry", "/system"], tell) as keyboard:
    for line in keyboard.lines():
        print(json.dumps(line), file=told, flush=True)
        print("LINE OK", file=sys.stderr, flush=True)
print("ENDED", file=sys.stderr)
"""
ERASE, ENTER, TAB, UP = "\x7f", "\r", "\t", "\x1b[A"


@pytest.fixture
def typing(tmp_path):
    """Type each of several lines; what the chat was told."""

    def run(*lines, **environment):
        def ready(terminal):
            terminal.until("> ") if environment.get("TERM") == "dumb" else terminal.prompt()

        with Terminal([sys.executable, "-c", PROGRAM], tmp_path, **environment) as terminal:
            for keys in lines:
                ready(terminal)
                terminal.type(keys)
                terminal.until("OK")
            ready(terminal)
            terminal.type("\x04")
            terminal.until("ENDED")
            assert terminal.end() == 0
            shown = terminal.shown
        told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
        return told, shown

    return run


KINDS = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "C": {"LC_ALL": "C"},
    "dumb": {"TERM": "dumb", "LC_ALL": "C.UTF-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "gbk": {"PYTHONIOENCODING": "gbk"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_wide_characters_are_erased_one_by_one_and_other_encodings_repaired_or_refused(typing, kind):
    text = "你好，世界" if kind == "gbk" else "你好，𠮷👍"
    erased = text.encode(kind if kind == "gbk" else "utf-8") + ERASE.encode() * 4
    told, shown = typing(
        *(keys + b"\r" for keys in (erased, "再见".encode("gbk"), "再见".encode(), b"\xe4")), **KINDS[kind]
    )
    assert told == ["你", "再见", "再见"]
    assert shown.count("neither UTF-8 nor GBK") == 1


def test_a_paste_of_several_lines_is_one_text_and_so_are_lines_typed_with_alt(typing):
    told, _ = typing("\x1b[200~第一行\r\n  第二行\r\n\x1b[201~" + ENTER, "一\x1b\r二" + ENTER)
    assert told == ["第一行\n  第二行", "一\n二"]


def test_ctrl_c_gives_the_line_up_says_how_to_end_and_never_ends_the_talk(tmp_path):
    with Terminal([sys.executable, "-c", PROGRAM], tmp_path) as terminal:
        for _ in range(2):
            terminal.prompt()
            terminal.type("你好")
            terminal.until("你好")
            terminal.type("\x03")
            terminal.until("(Ctrl-D or /quit ends)")
        for _ in range(50):  # at whatever moment
            terminal.signal(signal.SIGINT)
            time.sleep(0.003)
        terminal.type("\x15还在" + ENTER)
        terminal.until("LINE")
    assert json.loads((tmp_path / "told.jsonl").read_text()) == "还在"


def test_the_tab_key_completes_commands_and_nothing_else(typing):
    told, shown = typing("/sy" + TAB + "你是老师" + ENTER, "a /re" + TAB + ENTER, "/r" + TAB + TAB + "t" + TAB + ENTER)
    assert told == ["/system你是老师", "a /re", "/retry"]
    assert "/reset" in shown and "/retry" in shown


@pytest.mark.parametrize("kind", ["UTF-8", "dumb"])
def test_what_was_typed_is_there_again_in_the_next_talk_for_the_user_alone(typing, tmp_path, kind):
    state = tmp_path / "state"
    environment = KINDS[kind] | {"XDG_STATE_HOME": str(state)}
    typing("你好" + ENTER, " geheim" + ENTER, "再见" + ENTER, **environment)
    if kind == "dumb":
        assert not state.exists()
        return
    file = state / "buddygpt" / "chat.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert [json.loads(line) for line in file.read_text().splitlines()] == ["你好", "再见"]
    told, _ = typing(UP + UP + "！" + ENTER, **environment)
    assert told == ["你好！"]


def test_history_is_bounded_and_does_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = History()
    for n in range(2 * KEPT + 1):
        history.add(f"{n}\n第二行")
    with history.path.open("a") as file:
        file.write("{ damaged\n")
    assert History().texts[-1] == f"{2 * KEPT}\n第二行"
    assert len(history.path.read_text().splitlines()) <= KEPT
    assert history.path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    history = History()
    history.add("你好")
    assert history.texts == ["你好"]


def test_a_pipe_has_a_text_a_line_in_either_encoding(monkeypatch):
    raw = b"".join(
        [
            "你好\r\n".encode("utf-8-sig"),
            "你好\n".encode("gbk"),
            b"\xe4\n",
            "你好啊\n".encode()[1:],
            b"\n",
            "最后".encode("gb18030"),
        ]
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    refused = []
    assert list(piped_lines(refused.append)) == ["你好", "你好", "", "最后"]
    assert len(refused) == 2
    monkeypatch.setattr(sys, "stdin", None)
    assert list(piped_lines(refused.append)) == []


HANZI = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=2)


@given(HANZI)
def test_utf8_is_never_taken_for_gbk_nor_a_damaged_line_of_it(text):
    raw = text.encode()
    assert decode(raw) == text
    assert decode(raw + b"\xe4") is None
    assert decode(raw[:3] + b"\xff" + raw[3:]) is None


COMMON = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然"
    "家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
)


@given(st.text(COMMON, min_size=4))
def test_common_chinese_in_gbk_is_read_or_refused_but_never_read_as_something_else(text):
    raw = text.encode("gbk")
    try:
        raw.decode()
    except UnicodeDecodeError:
        assert decode(raw) in (text, None)  # a few lines might as well be damaged UTF-8: 一一天部 has 첿 in it


def test_nearly_all_common_chinese_in_gbk_is_read():
    draw = random.Random(0)
    texts = ["".join(draw.choices(COMMON, k=draw.randint(4, 12))) for _ in range(5000)]
    assert sum(decode(text.encode("gbk")) == text for text in texts) >= 4980
