"""Attention variants, one file each; a variant's schema class is in recipe/model.py."""

from buddygpt.model.attention.gqa import GQAttention
from buddygpt.model.attention.mla import MLAttention

ATTENTION = {"gqa": GQAttention, "mla": MLAttention}
