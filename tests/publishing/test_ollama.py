"""Ollama's Modelfile: its template, rendered by Go itself, says what the chat template says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import GenerationConfig

from buddygpt.data.tokenizer import make_chat_tokenizer, train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.publishing.ollama import GO_TEMPLATE, modelfile, see_template
from buddygpt.recipe.errors import BuddyError

TEXT = ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3]
USER, ANSWER = {"role": "user", "content": "你好，<b>&{{ .Role }}</b>？"}, {"role": "assistant", "content": "你好！"}
SYSTEM = {"role": "system", "content": "简短回答。\n"}
THOUGHT = ANSWER | {"reasoning_content": "他在打招呼。\n我也打。"}
WEATHER = {"type": "function", "function": {"name": "天气", "parameters": {"type": "object"}}}
CALL = {"function": {"name": "天气", "arguments": {"城市": "北京", "天": 2}}}
ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
ASKED_TWICE = {"role": "assistant", "content": "我查一下。", "tool_calls": [CALL, CALL]}
TOLD = {"role": "tool", "content": "晴，<25 度"}
TALKS = {
    "a question": ([USER], []),
    "a system turn": ([SYSTEM, USER], []),
    "turns": ([SYSTEM, USER, ANSWER, USER], []),
    "reasoning": ([USER, THOUGHT, USER, ANSWER, USER], []),
    "a tool": ([USER, ASKED, TOLD], [WEATHER]),
    "tools": ([SYSTEM, USER, ASKED_TWICE, TOLD, TOLD, ANSWER, USER, ASKED, TOLD], [WEATHER, WEATHER]),
    "nothing said": ([{"role": "user", "content": ""}], []),
}


def for_go(messages, tools):
    """As Ollama's programs name the fields."""
    return {
        "Messages": [
            {
                "Role": m["role"],
                "Content": m["content"],
                "Thinking": m.get("reasoning_content", ""),
                "ToolCalls": m.get("tool_calls", []),
            }
            for m in messages
        ],
        "Tools": tools,
    }


def compact(text):
    """Without the blanks after marks, of which Go writes none in its JSON."""
    return re.sub("([:,]) ", r"\1", text)


@pytest.fixture(scope="module")
def words():
    return make_chat_tokenizer(train_tokenizer(TEXT, 270))


@pytest.fixture
def model(words):
    config = BuddyGPTConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, max_position_embeddings=256,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=16, pad_token_id=words.pad_token_id,
        eos_token_id=words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
    )  # fmt: skip
    made = BuddyGPTForCausalLM(config)
    made.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9)
    return made


@pytest.fixture
def go(tmp_path):
    """What Go makes of talks."""
    if shutil.which("go") is None:
        pytest.skip("needs go: apt-get install golang-go")

    def render(*talks):
        (tmp_path / "template").write_text(GO_TEMPLATE, "utf-8")
        (tmp_path / "talks.json").write_text(json.dumps([for_go(*talk) for talk in talks]), "utf-8")
        program = str(Path(__file__).with_name("ollama.go"))
        done = subprocess.run(
            ["go", "run", program, str(tmp_path / "template"), str(tmp_path / "talks.json")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return render


def test_go_renders_what_the_chat_template_says(words, go):
    for (name, (messages, tools)), rendered in zip(TALKS.items(), go(*TALKS.values()), strict=True):
        said = words.apply_chat_template(messages, tools=tools or None, tokenize=False, add_generation_prompt=True)
        assert compact(rendered) == compact(said), name
        assert tools or rendered == said, name


def test_a_talk_that_ends_with_an_answer_is_gone_on_with(words, go):
    said = words.apply_chat_template([USER, ANSWER], tokenize=False, continue_final_message=True)
    assert go(([USER, ANSWER], [])) == [said]


def test_a_chat_models_modelfile(model, words):
    lines = modelfile(model, words, "demo-f16.gguf").splitlines()
    assert lines[0] == "FROM ./demo-f16.gguf"
    text = "\n".join(lines)
    assert text.count('"""') == 2 and text.split('"""')[1] == GO_TEMPLATE
    assert {line for line in lines if line.startswith("PARAMETER")} == {
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER num_ctx 256",
        "PARAMETER temperature 0.7",
        "PARAMETER top_p 0.9",
        "PARAMETER top_k 0",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
    }


def test_a_base_models_modelfile_goes_on_with_the_prompt(model):
    base = train_tokenizer(TEXT, 270)
    model.config.eos_token_id = model.generation_config.eos_token_id = base.eos_token_id
    text = modelfile(model, base, "a.gguf")
    assert 'TEMPLATE """{{ .Prompt }}"""' in text and text.count("PARAMETER stop") == 1


def test_another_chat_template_is_refused(words):
    see_template(words)
    see_template(train_tokenizer(TEXT, 270))
    other = train_tokenizer(TEXT, 270)
    other.chat_template = "{{ messages }}"
    with pytest.raises(BuddyError, match="chat template is not buddygpt's"):
        see_template(other)
