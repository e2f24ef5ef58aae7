"""`buddy chat`: what is said and shown, in a pipe and on a terminal, to one model and to two."""

import os
import pty
import re
import sys

import pytest
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from buddygpt.cli.render import Renderer
from buddygpt.cli.session import COMMANDS, Session
from buddygpt.cli.speech import Hearing, Speaker
from buddygpt.conversation.talk import Conversation
from buddygpt.data.formats import Message
from buddygpt.data.tokenizer import chat_ends, make_chat_tokenizer, train_tokenizer
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.sampling import Sampling
from tests.terminal import Terminal

BYTES = bytes_to_unicode()
SAMPLING = Sampling(max_new_tokens=200, temperature=0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3], 270)


def make_model(tokenizer, positions=1024):
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, max_position_embeddings=positions,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return BuddyGPTForCausalLM(config).eval()


@pytest.fixture
def speaker(tokenizer):
    """Makes a model that says given texts in turn, byte by byte."""

    def make(name, *replies, base=False, positions=1024):
        made = tokenizer if base else make_chat_tokenizer(tokenizer)
        model, end = make_model(made, positions), tokenizer.eos_token_id if base else chat_ends(made)[0]
        coming = [t for text in replies for t in (*made.convert_tokens_to_ids([BYTES[b] for b in text.encode()]), end)]

        def hook(module, inputs, logits):
            token = coming.pop(0) if coming else end
            if isinstance(token, BaseException):
                raise token
            logits[..., token] = 1e4

        model.lm_head.register_forward_hook(hook)
        spoken = Speaker(name, Conversation(model, made, SAMPLING, silent))
        spoken.coming = coming
        return spoken

    return make


@pytest.fixture
def screen(monkeypatch):
    """Makes standard output and error a terminal of so many columns; gives what was written to it."""
    opened = []

    def make(columns):
        master, slave = pty.openpty()
        opened.extend([master, slave])
        stream = open(slave, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        os.set_blocking(master, False)

        def read():
            stream.flush()
            out = b""
            try:
                while part := os.read(master, 65536):
                    out += part
            except BlockingIOError:
                pass
            return out.decode().replace("\r\n", "\n")

        return read

    yield make
    for descriptor in opened:
        os.close(descriptor)


def talk(*speakers, lines):
    session = Session(speakers, Hearing(speakers, figures=True), Renderer(stderr=True))
    session.run(iter(lines))
    return session


MARKUP = "[bold]粗[/x] list[int]\x1b[31m"


def test_on_a_terminal_control_characters_are_shown_and_nothing_is_markup(speaker, screen):
    read = screen(80)
    talk(speaker("m", MARKUP), lines=["问 [bold]", "/params \x1b[2J=1"])
    said, figures, *rest = read().splitlines()
    assert said == "[bold]粗[/x] list[int]␛[31m"
    assert re.fullmatch(r"\x1b\[2m\d+ tokens, [\d.]+ tokens/s\x1b\[0m", figures)
    assert rest == ["buddy: '␛[2J=1': there is max_new_tokens, temperature, top_p, seed"]


def test_in_a_pipe_answers_are_as_they_are_and_all_else_is_on_the_other_stream(speaker, capfd):
    talk(speaker("m", MARKUP, "二\n行"), lines=["问", "", "/stats", "/params", "/nope", "问"])
    out, err = capfd.readouterr()
    assert out == f"{MARKUP}\n二\n行\n"
    assert "tokens/s" in err and "max_new_tokens=200" in err and "/nope: no such command" in err


def test_side_by_side_rows_come_when_both_have_them(speaker, screen):
    read = screen(80)
    left, right = "春眠不觉晓，" * 8, "one two three four five six seven eight nine ten"
    talk(speaker("左", left), speaker("right", right), lines=["问"])
    head, *rows, figures = read().splitlines()
    assert head == f"\x1b[2m左{' ' * 36} │ right\x1b[0m"
    sides = [row.split("│") for row in rows]
    assert "".join(side[0].strip() for side in sides) == left
    assert " ".join(side[1].strip() for side in sides if side[1:]).strip() == right
    assert len(rows) == 3 and rows[2].endswith("│")
    assert figures.count("tokens/s") == 2


@pytest.mark.parametrize("columns", [79, 40, None])
def test_narrow_or_in_a_pipe_one_stands_below_the_other(speaker, screen, capfd, columns):
    read = screen(columns) if columns else lambda: capfd.readouterr().out
    talk(speaker("a", "春"), speaker("b", "花"), lines=["问"])
    rows = [row for row in read().splitlines() if "tokens" not in row]
    assert rows == ["-- a", "春", "-- b", "花"]


def test_a_fault_of_one_does_not_end_the_other_and_commands_mind_who_heard_what(speaker, capfd):
    a, b = speaker("a", "一", "二", "三"), speaker("b", "甲", "乙", "丙", positions=64)
    talk(a, b, lines=["春", "长" * 40, "/undo"])
    out, err = capfd.readouterr()
    assert out == "-- a\n一\n-- b\n甲\n-- a\n二\n-- b\n"
    assert err.count("the model's context 64") == 1 and "taken back" in err
    assert [len(s.talk.messages) for s in (a, b)] == [2, 2], "only the one that had it took it back"
    assert [s.talk.messages[0].content for s in (a, b)] == ["春", "春"]


def test_commands_apply_to_both(speaker, capfd):
    both = speaker("a", *"一二三四五六"), speaker("b", *"甲乙丙丁戊己")
    lines = ["/system 你是老师", "春", "/retry", "夏", "/undo", "/params seed=4 temperature=0.5", "/retry", "/system"]
    talk(*both, lines=lines)
    assert [[m.content for m in s.talk.messages] for s in both] == [["你是老师", "春", x] for x in "四丁"]
    assert [s.talk.sampling for s in both] == [Sampling(200, 0.5, 0.95, 5)] * 2
    assert "system message: 你是老师" in capfd.readouterr().err
    talk(*both, lines=["/system -", "/reset", "/undo", "/retry", "/quit", "不问"])
    err = capfd.readouterr().err
    assert [s.talk.messages for s in both] == [[], []]
    assert "nothing to take back" in err and "nothing was said yet" in err


def test_a_base_model_keeps_no_talk(speaker, capfd):
    talk(speaker("m", "眠", "晓", base=True), lines=["春", "/undo", "/reset", "/system 诗", "/system", "/retry"])
    out, err = capfd.readouterr()
    assert out == "眠\n" and err.count("a base model") == 4 and "nothing was said yet" in err


def test_a_slash_is_said_where_it_is_no_command(speaker, capfd):
    said = ["/etc/passwd 是什么", "/ 春", "/2", "春/undo"]
    model = speaker("m", *"一二三四五")
    talk(model, lines=[*said, "//undo", "/unod", "/HELPME x", "/help"])
    assert [m.content for m in model.talk.messages if m.role == "user"] == [*said, "/undo"]
    err = capfd.readouterr().err
    assert "/unod: no such command" in err and "did you mean '/undo'?" in err and "/HELPME: no such" in err
    assert all(f"{command} " in err for command in COMMANDS)


def test_ctrl_c_in_a_reply_of_two_keeps_what_both_said(speaker, screen):
    read = screen(80)
    a, b = speaker("a", "春眠不觉晓"), speaker("b", "花落知多少")
    b.coming[4] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        talk(a, b, lines=["问"])
    assert [s.talk.messages[-1].content for s in (a, b)] == ["春眠", "花"]
    assert [s.replies[0].end for s in (a, b)] == ["interrupted"] * 2
    *_, row, figures = read().splitlines()
    assert row == "春眠" + " " * 34 + " │ 花"
    assert figures.count("broken off") == 2


@pytest.fixture(scope="module")
def world(tokenizer, tmp_path_factory):
    """A chat model in a folder `m`; at temperature 0 it talks on and on."""
    folder = tmp_path_factory.mktemp("talk")
    made = make_chat_tokenizer(tokenizer)
    make_model(made, 8192).save_pretrained(folder / "m")
    made.save_pretrained(folder / "m")
    return folder


MAIN = [sys.executable, "-c", "from buddygpt.cli.app import main; main()"]


def test_a_talk_on_a_terminal(world):
    """Ctrl-C ends a reply and not the talk; what is typed meanwhile waits; two models side by side."""
    command = [*MAIN, "chat", "m", "m", "--max-new-tokens", "8000", "--temperature", "0"]
    with Terminal(command, world, LC_ALL="C") as terminal:
        terminal.until("m: a chat model")
        terminal.prompt()
        terminal.type("你好\x7f\r")
        head = terminal.until("│")
        assert "> 你" in head
        terminal.type("/stats")
        for _ in range(5):
            terminal.until("│")
        terminal.type("\x03\x03\x03")
        figures = terminal.until("broken off")
        assert "/stats" not in figures
        terminal.prompt()
        terminal.type("\x15/params max_new_tokens=3\r")
        terminal.until("max_new_tokens=3 ")
        terminal.prompt()
        terminal.type("/retry\r")
        terminal.until("3 tokens")
        terminal.prompt()
        terminal.type("/undo\r")
        terminal.until("taken back: 你\n")
        terminal.prompt()
        terminal.type("\x04")
        assert terminal.end() == 0


def test_arguments(buddy, world, monkeypatch):
    monkeypatch.chdir(world)
    assert (
        buddy("chat", "m", "m", "m").err == "buddy: 3 models: one answers, or two side by side; leave the others out\n"
    )
    short = ("--max-new-tokens", "3", "--seed", "1")
    out = buddy("chat", "m", "m", "--prompt", "春", *short).out
    first, second = out.split("-- m (2)\n")
    assert first == f"-- m\n{second}"
    assert second == buddy("chat", "m", "--prompt", os.fsdecode("春".encode("gbk")), *short).out
    assert "neither UTF-8 nor GBK" in buddy("chat", "m", "--prompt", os.fsdecode(b"\xe4")).err
    assert "seed=-1: give a whole number" in buddy("chat", "m", "--seed", "-1").err
    long = buddy("chat", "m", "--prompt", "长" * 3000)
    assert (long.code, long.out) == (2, "") and "the model's context 8,192" in long.err
    assert buddy("chat", "m", "--prompt", "/undo", *short).code == 0, "a prompt is a text, whatever it is"


def test_a_talk_goes_on_after_the_messages_it_was_given(speaker):
    """A front end may set the turns itself."""
    model = speaker("m", "一")
    model.talk.messages = [Message("user", "春"), Message("assistant", "夏")]
    talk(model, lines=["秋"])
    assert [m.content for m in model.talk.messages] == ["春", "夏", "秋", "一"]
