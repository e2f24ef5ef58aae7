"""Whether llama.cpp, with a GGUF file, says what our own model says with the same numbers.

The model is rounded as the file was, computed in fp32 over what llama.cpp said greedily, and asked at every step
whether it would have said the same: where it always would, the two say the same tokens, for each follows from those
before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from buddygpt.data.tokenizer.ranks import byte_characters
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.whole import fill, outline
from buddygpt.recipe.errors import BuddyError

PROMPTS = (
    "春眠不觉晓，处处闻啼鸟。", "中国的首都是", "人工智能是", "从前有一座山，", "水在零度以下会",
    "请用一句话介绍你自己。", "1 加 1 等于", "学习语言最好的办法是", "今天天气很好，我想", "《红楼梦》的作者是",
)  # fmt: skip
TEXTS = (
    "春眠不觉晓，处处闻啼鸟。\n\n第1题。\n\nA. 12,345.67！？", "2024年10月1日 2 + 2 = 4", "Don't it'S I'LL we’re naïve",
    "def f(x):\n    return x  # 平方\n\n\n\tif a != b:\r\n\t\tpass\n", "𠮷野家 㐂 龘 🚀👩‍👩‍👧 ｆｕｌｌ 한글 かな РУС",
    " \t\n 　 a  b   c\n \n\r\n",
    "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n<think>\n想\n</think>\n\n<|endoftext|>", "",
)  # fmt: skip
"""Where tokenizers of one vocabulary part: marks, figures, code, blanks, rare signs, control tokens. All in NFC."""
TURNS = (
    {"role": "system", "content": "简短回答。"}, {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好！"}, {"role": "user", "content": "1 + 1？"},
)  # fmt: skip
MOST = 24
"""Tokens said after each prompt."""
TOP = 5
"""Likeliest tokens of a step, whose log probabilities are compared."""
FAR = 1024
"""Longest prompt that is read to see positions far from the start, in tokens."""
ROUNDED = {"f32": None, "f16": torch.float16, "bf16": torch.bfloat16}
LEEWAY = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}
"""Difference of log probabilities that rounding accounts for. The weights are rounded alike on both sides, but
llama.cpp rounds what goes into each product to their type too; measured: 3e-5, 6e-3 and 5e-2. Other types are told, not
judged."""
LARGE = 30.0
"""Logits up to this are usual; where the largest is larger, rounding is so too."""
WITH_EXPERTS = 0.9
"""Share of the steps that must agree where there are experts: near a tie of the router, rounding sends a token to
another one, which is no longer a matter of rounding."""


@dataclass(frozen=True)
class Agreement:
    """How far llama.cpp and we agree.

    Args:
        tokens: said by llama.cpp.
        equal: of those, that we would have said too.
        ties: of the others, those of which our two logits lie within rounding.
        difference: largest difference of log probabilities of a step's likeliest tokens.
        version: of the package that loaded the file.
    """

    tokens: int
    equal: int
    ties: int
    difference: float
    version: str


def ask(file: Path, questions: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp answers, in a process of its own, to what `llama.py` reads.

    Raises:
        BuddyError: it cannot load the file, or failed; tells its last words.
    """
    with tempfile.TemporaryDirectory(prefix="buddy-llama-") as place:
        work = Path(place)
        (work / "questions.json").write_text(json.dumps(questions), "utf-8")
        script = str(Path(__file__).with_name("llama.py"))
        done = subprocess.run(
            [sys.executable, "-P", script, str(file.absolute()), place],
            capture_output=True, text=True, errors="replace", check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if done.returncode or not (work / "answers.json").is_file():
            raise BuddyError(f"llama.cpp cannot load {file.name}: {_last_words(done)}; nothing was written")
        return json.loads((work / "answers.json").read_text("utf-8"))


def agree(model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, file: Path, kind: str) -> Agreement:
    """See that llama.cpp with the file is this model.

    Raises:
        BuddyError: it cannot load it, cuts a text otherwise, renders a talk otherwise, or says something else where
            rounding does not account for it.
    """
    config: Any = model.config
    prompts = _prompts(tokenizer, config.max_position_embeddings)
    context = max(map(len, prompts)) + MOST + 8
    answers = ask(file, {
        "context": context, "threads": torch.get_num_threads(), "texts": TEXTS, "prompts": prompts, "most": MOST,
        "top": TOP, "turns": TURNS if tokenizer.chat_template else None,
    })  # fmt: skip
    _see_same_words(tokenizer, answers)
    twin = rounded(model, ROUNDED.get(kind))
    lacks: list[Tensor] = []
    off: list[float] = []
    largest = 0.0
    for prompt, said in zip(prompts, answers["said"], strict=True):
        steps = len(said["ids"])
        ids_1T = torch.tensor([prompt + said["ids"]])
        with torch.inference_mode():
            logits_TV = twin(ids_1T, use_cache=False, logits_to_keep=steps + 1).logits[0, :-1].float()
        largest = max(largest, float(logits_TV.abs().max()))
        lacks.append(logits_TV.amax(-1) - logits_TV.gather(-1, ids_1T[0, -steps:, None])[:, 0])
        chances_TV = logits_TV.log_softmax(-1)
        for i, likeliest in zip(_told(tokenizer, said["ids"]), said["likeliest"], strict=True):
            theirs = torch.tensor([chance for _, chance in likeliest])
            off.append(float((chances_TV[i, [id for id, _ in likeliest]] - theirs).abs().max()))
    leeway = LEEWAY.get(kind, 0.0) * max(1.0, largest / LARGE)
    lack_T, off_T = torch.cat(lacks), torch.tensor(off)
    tokens, equal, ties = len(lack_T), int((lack_T == 0).sum()), int(((lack_T > 0) & (lack_T <= leeway)).sum())
    found = Agreement(tokens, equal, ties, float(off_T.max()), answers["version"])
    share = min((equal + ties) / tokens, float((off_T <= leeway).float().mean()))
    if kind in LEEWAY and share < (WITH_EXPERTS if config.mlp_kind == "moe" else 1.0):
        raise BuddyError(
            f"llama.cpp says something else with the {kind} file: {equal} of {tokens} tokens equal, {ties} more at a "
            f"tie, log probabilities off by {found.difference:.1e}; nothing was written"
        )
    return found


def rounded(model: BuddyGPTForCausalLM, dtype: torch.dtype | None) -> BuddyGPTForCausalLM:
    """The model in fp32, its matrices rounded as the file's: the converter keeps vectors and routers in fp32."""

    def as_written(name: str, tensor: Tensor) -> Tensor:
        whole = tensor.detach().to("cpu", torch.float32)
        keeps = dtype is None or tensor.dim() < 2 or name.endswith("mlp.gate.weight")
        return whole if keeps else whole.to(dtype).float()

    twin = outline(model.config)  # type: ignore[arg-type]
    fill(twin, {name: as_written(name, tensor) for name, tensor in model.state_dict().items()})
    return twin


def _prompts(tokenizer: PreTrainedTokenizerBase, longest: int) -> list[list[int]]:
    """The ten prompts, asked as talks of a chat model, and a long text."""
    if tokenizer.chat_template:
        talks = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        ids = [tokenizer.apply_chat_template(t, add_generation_prompt=True, return_dict=False) for t in talks]
    else:
        ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    text = tokenizer("".join(PROMPTS))["input_ids"]
    far = (text * (FAR // len(text) + 1))[: min(FAR, longest) - MOST]
    return [list(prompt)[: longest - MOST] for prompt in ids] + [far]


def _told(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Steps whose probabilities llama.cpp's server tells: those after which no character is left half said."""
    byte_of = {char: byte for byte, char in enumerate(byte_characters())}
    starts = (0xC0, 0xE0, 0xF0)  # a byte so near the end needs more than are there
    steps, said = [], b""
    for i, piece in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        if not (piece.startswith("<|") and piece.endswith("|>")):  # control marks have no text
            said += bytes(byte_of.get(char, 0) for char in piece)
        if not any(start <= byte < 0xF8 for byte, start in zip(reversed(said), starts, strict=False)):
            steps.append(i)
    return steps


def _see_same_words(tokenizer: PreTrainedTokenizerBase, answers: dict[str, Any]) -> None:
    for text, ids in zip(TEXTS, answers["texts"], strict=True):
        if ids != tokenizer(text)["input_ids"]:
            raise BuddyError(f"llama.cpp cuts {text!r} into other tokens than the tokenizer; nothing was written")
    if tokenizer.chat_template:
        ours = tokenizer.apply_chat_template(list(TURNS), tokenize=False, add_generation_prompt=True)
        if answers["chat"] != ours:
            raise BuddyError("llama.cpp renders a talk otherwise than the chat template does; nothing was written")


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower() or " E " in line or "GGML_ASSERT" in line]
    return (told or lines or [f"exit code {done.returncode}"])[-1][:300]
