"""What a trimmed vocabulary costs in tokens and saves in the 0.1b, by its size.

The entries are chosen on the training part of python-docs-zh; its held-out part and d2l-zh are encoded with them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.table import table

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "corpus"
SIZES = (8192, 16_384, 32_768, 65_536, None)
TEXTS = ("python-docs-zh", "d2l-zh")


def run() -> str:
    """Bytes a token of held-out text; the tables' share of parameters, the head's share of operations."""
    from buddygpt.data.prepare import prepare
    from buddygpt.events import silent
    from buddygpt.model.cost import count_flops
    from buddygpt.recipe.geometry import count_parameters
    from buddygpt.recipe.loader import load_recipe

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "0.1b.yaml", changes(size))
            manifest = prepare(recipe, Path(folder), silent).manifest
            chosen, other = (manifest["sources"][name]["splits"]["validation"] for name in TEXTS)
            assert recipe.pretrain is not None
            parameters = count_parameters(recipe.model)
            flops = count_flops(recipe.model, recipe.pretrain.sequence_length)
            kept = manifest["tokenizer"].get("kept", {"share_of_text": 1})["share_of_text"]
            rows.append(
                (
                    f"{recipe.model.vocab_size:,}",
                    f"{kept:.2%}",
                    f"{chosen['bytes_per_token']:.3f}",
                    f"{other['bytes_per_token']:.3f}",
                    f"{parameters.total / 1e6:.1f} M",
                    f"{parameters.vocabulary_share:.0%}",
                    f"{flops.training / 1e9:.3f}",
                    f"{flops.head / flops.forward:.0%}",
                )
            )
    head = (
        "entries", "of the training text's tokens kept", f"bytes a token, {TEXTS[0]}", f"bytes a token, {TEXTS[1]}",
        "parameters", "of them embedding", "GFLOP a token", "of them head",
    )  # fmt: skip
    what = f"Chosen on the training part of {TEXTS[0]}; 3 % of its documents and all of {TEXTS[1]} are held out."
    return what + "\n\n" + table(head, rows)


def changes(size: int | None) -> list[str]:
    """Overrides of the 0.1b for a vocabulary of `size` entries; all of Qwen3's where None."""
    sources = ", ".join(
        f"{{kind: files, name: {name}, paths: ['{CORPUS / name}.jsonl.gz'], validation: {held}}}"
        for name, held in zip(TEXTS, (0.03, 1), strict=True)
    )
    tokenizer = [] if size is None else [f"tokenizer.keep={size}", f"model.vocab_size={size}"]
    return [f"data.sources=[{sources}]", *tokenizer]
