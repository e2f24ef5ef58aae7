"""Cards by their data sheets, and what share of their peak training is assumed to reach."""

from __future__ import annotations

import re
from dataclasses import dataclass

GB = 2**30
"""What makers of cards call a GB."""


@dataclass(frozen=True)
class Card:
    """One card.

    Args:
        name: as it is sold.
        words: of the name that torch gives it, in lower case; those by which it is known.
        teraflops: peak of its matrix units in bf16, dense (no sparsity), with sums in fp32, in 10^12 a second.
        gigabytes: memory.
    """

    name: str
    words: str
    teraflops: float
    gigabytes: int

    @property
    def peak(self) -> float:
        """Operations a second."""
        return self.teraflops * 1e12

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.gigabytes * GB


# Where the figures come from. Seen: in public code or pages that cite the maker. Recalled: nobody could look it up when
# this was written; take it with care.
CARDS = (
    # NVIDIA Ampere GA102 whitepaper, appendix A: 71 with fp32 sums (142 with fp16 sums). Seen as 71 in lists of cards.
    Card("RTX 3090", "3090", 71, 24),
    # NVIDIA Ada whitepaper, appendix A: 165.2. Seen as 165 in lists of cards.
    Card("RTX 4090", "4090", 165.2, 24),
    # 114 of the 4090's 128 multiprocessors at its clock. Recalled.
    Card("RTX 4090 D", "4090 d", 147, 24),
    # NVIDIA RTX Blackwell whitepaper, appendix A: 209.5. Seen in a public catalog of cards.
    Card("RTX 5090", "5090", 209.5, 32),
    # NVIDIA L20 data sheet: 119.5; its 48 GB were seen, the peak is recalled.
    Card("L20", "l20", 119.5, 48),
    # NVIDIA L40S data sheet: 362 (733 with sparsity). Seen in tables of data sheets.
    Card("L40S", "l40s", 362, 48),
    # NVIDIA A100 data sheet: 312. Seen with a link to it. The A800 is an A100 with slower links between cards.
    Card("A100 40GB", "a100 40gb", 312, 40),
    Card("A100 80GB", "a100 80gb", 312, 80),
    Card("A800 80GB", "a800", 312, 80),
    # NVIDIA H100 data sheet: 1,979 with sparsity (SXM), 1,513 (PCIe). Seen with a link to it; seen too: H800 as H100.
    Card("H100 PCIe", "h100 pcie", 756, 80),
    Card("H100", "h100", 989, 80),
    Card("H800 PCIe", "h800 pcie", 756, 80),
    Card("H800", "h800", 989, 80),
    # NVIDIA H200 data sheet: as the H100 SXM. Seen. It says 141 GB, torch counts 140.
    Card("H200", "h200", 989, 140),
    # 148 seen on several pages, among them a report of its launch; 96 GB.
    Card("H20", "h20", 148, 96),
    # Huawei's own plug-in for torchtitan: peaks of the cube units, the smaller of two that it names. Memory recalled.
    Card("Ascend 910B2", "ascend910b2", 353.9, 64),
    Card("Ascend 910B3", "ascend910b3", 294.9, 64),
    Card("Ascend 910B4", "ascend910b4", 245.8, 32),
)
_OTHERS = frozenset("ti d super laptop max mobile pcie nvl".split())
"""Words that make another card of one with the same number."""
_EITHER = frozenset(("a100", "a800"))
"""Cards as fast on a PCIe board."""


def find_card(device: str) -> Card | None:
    """The card by the name that torch gives it; None where it is not among `CARDS`."""
    words = set(re.findall(r"[a-z0-9]+", device.lower()))
    special = words & _OTHERS - ({"pcie"} if words & _EITHER else set())
    known = [card for card in CARDS if (named := set(card.words.split())) <= words and special <= named]
    return max(known, key=lambda card: len(card.words.split()), default=None)


ASSUMED_MFU = 0.12
"""Share of a card's peak that training is assumed to reach, embedding and head included. Measured with this program on
one H200 (torch 2.11, bf16, documents isolated, not compiled): 0.1b-32k 19 %, 0.3b 14 %, 0.3b-mla 13 %, 0.7b-moe 6 %; on
one H100 0.1b 14 %. Slower cards are easier to fill and reach more; published for other programs: 50 % (nanochat d24 on
H100), 56 % (TinyLlama 1.1B on A100), 9 % (SmolLM-135M on H100)."""
LAUNCHES = 5e-3
"""Seconds that a layer takes at least in a micro-batch, forward and backward: some 200 kernels are launched one by one.
Measured with tiny's three layers beside one H100: 16 ms. It rules for models of a few million parameters."""


def peak_flops(device: str, precision: str) -> float | None:
    """Operations a second that a device reaches at most.

    Args:
        device: the name that torch gives it.
        precision: of the products: bf16, fp16 or fp32.

    Returns:
        None where it is not known: CPUs have no such figure, and fp32 products run in TF32 or not as torch is set.
    """
    card = None if precision == "fp32" else find_card(device)
    return None if card is None else card.peak
