"""Run as a script, in a process of its own: a GGUF file under llama.cpp (package xllamacpp).

    python -P llama.py FILE WORK

Reads WORK/questions.json:

    {"context": tokens, "texts": [str], "prompts": [[id]], "most": tokens, "top": n, "turns": [message] or null}

and writes WORK/answers.json: how llama.cpp cuts the texts, what it says greedily after each prompt with the log
probabilities of the likeliest tokens of each step, and what it makes of a talk by the file's chat template. In a
process of its own because a fault of llama.cpp ends its process.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any


def main(file: Path, work: Path) -> None:
    """Load the file on the CPU, ask, write the answers."""
    import xllamacpp

    questions = json.loads((work / "questions.json").read_text("utf-8"))
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx = questions["context"]
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.warmup = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = questions["threads"]
    # Only the weights are to be judged: keys and values stay as they were computed.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
        with direct.open(request) as reply:
            return json.load(reply)

    def cut(text: str) -> list[int]:
        return ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]

    def say(prompt: list[int]) -> dict[str, Any]:
        reply = ask("/completion", {
            "prompt": prompt, "n_predict": questions["most"], "temperature": 0, "n_probs": questions["top"],
            "return_tokens": True, "cache_prompt": False,
        })  # fmt: skip
        steps = reply.get("completion_probabilities", [])
        return {
            "ids": reply["tokens"],
            "likeliest": [[[one["id"], one["logprob"]] for one in step["top_logprobs"]] for step in steps],
        }

    answers: dict[str, Any] = {
        "version": xllamacpp.__version__,
        "texts": [cut(text) for text in questions["texts"]],
        "said": [say(prompt) for prompt in questions["prompts"]],
    }
    if questions["turns"]:
        answers["chat"] = ask("/apply-template", {"messages": questions["turns"]})["prompt"]
    (work / "answers.json").write_text(json.dumps(answers), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
