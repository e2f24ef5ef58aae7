"""Cleaning: what is done to every text, and the filters of quality that a recipe may switch on."""

from buddygpt.data.clean.cleaner import CHECKS, Cleaned, Cleaner
from buddygpt.data.clean.normal import normalise

__all__ = ["CHECKS", "Cleaned", "Cleaner", "normalise"]
