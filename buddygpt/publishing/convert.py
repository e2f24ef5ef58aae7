"""Run as a script, in a process of its own: llama.cpp's packaged converter over a folder of transformers' own.

    python -P convert.py FOLDER FILE TYPE NAME

Writes FILE, and tells on the last line of standard output, as JSON, how many tensors have which type. Nothing of
buddygpt is needed here.

The converter knows a pre-tokenizer by a hash of what the whole tokenizer makes of one text, so that it knows published
vocabularies and no other. Ours, trained or trimmed, cut words by Qwen2's pattern behind any vocabulary, which the
caller has seen to: `get_vocab_base_pre` is replaced, to say so.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path

PRE_TOKENIZER = "qwen2"
FORGOTTEN = ("DSPARK_MARKOV_W1", "DSPARK_MARKOV_W2", "DSPARK_CONF_PROJ")
"""Names of DeepSeek-V4's draft tensors that version 0.1.1 uses beside DeepSeek-V3 and brings in none of its files."""


def undo_sharpening(factor: float) -> float:
    """What llama.cpp is to be told so that its DeepSeek-V3 leaves attention alone under linear scaling.

    It multiplies logits by ((1 + 0.1 ln f)(1 + 10 m 0.1 ln f))^2 for any scaling by a factor f, and takes the first
    back for YaRN only; m is the number in the file.
    """
    sharpened = 1 + 0.1 * math.log(factor)
    return (1 / sharpened - 1) / math.log(factor) if factor > 1 else 0.0


def converter(folder: Path) -> type:
    """The converter's class for the architecture of a folder, which takes the words to be cut by Qwen2's pattern."""
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    for name in FORGOTTEN:
        if not hasattr(gguf.MODEL_TENSOR, name):
            setattr(gguf.MODEL_TENSOR, name, None)
    architecture = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
    known = get_model_class(architecture)

    class Converter(known):
        model_arch = known.model_arch

        def get_vocab_base_pre(self, tokenizer: object) -> str:
            return PRE_TOKENIZER

        def set_gguf_parameters(self) -> None:
            super().set_gguf_parameters()
            rope = self.rope_parameters
            if architecture == "DeepseekV3ForCausalLM" and rope.get("rope_type") == "linear":
                self.gguf_writer.add_rope_scaling_yarn_log_mul(undo_sharpening(rope["factor"]))

    return Converter


def main(folder: Path, file: Path, kind: str, name: str) -> None:
    """Convert, and tell what was written."""
    import gguf
    import torch

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        model = converter(folder)(folder, types[kind], file, model_name=name)
        model.write()
    counts = Counter(info.dtype.name.lower() for part in model.gguf_writer.tensors for info in part.values())
    sys.stdout.write(json.dumps({"architecture": model.gguf_writer.arch, "tensors": counts}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
