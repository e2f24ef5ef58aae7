"""Run as a script, in a process of its own: an exported folder under transformers alone.

    python -P reload.py FOLDER WORK

Reads WORK/probe.safetensors (ids, positions) and WORK/texts.json, writes WORK/logits.safetensors (fp32) and
WORK/facts.json. Nothing of buddygpt can be imported here, and no code of the folder's runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.modules["buddygpt"] = None  # type: ignore[assignment]


def main(folder: Path, work: Path) -> None:
    """Load the model and its tokenizer, run both on what the exporter ran."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    model, info = loaded
    probe = load_file(work / "probe.safetensors")
    with torch.inference_mode():
        logits = model.eval()(
            probe["ids"], attention_mask=torch.ones_like(probe["ids"]), position_ids=probe["positions"], use_cache=False
        ).logits
    save_file({"logits": logits.float().contiguous()}, work / "logits.safetensors")
    facts = {
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
        "faults": [str(key) for what in ("missing", "unexpected", "mismatched") for key in info[f"{what}_keys"]],
    }
    texts = json.loads((work / "texts.json").read_text("utf-8"))
    if texts:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        facts["ids"] = tokenizer(texts["text"])["input_ids"]
        if tokenizer.chat_template:
            facts["chat"] = tokenizer.apply_chat_template(texts["turns"], tokenize=False, add_generation_prompt=True)
    (work / "facts.json").write_text(json.dumps(facts), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
