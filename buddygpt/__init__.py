"""buddygpt: train small language models from scratch, Chinese first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, BuddyGPTModel, extend
    from buddygpt.recipe.loader import load_recipe

__version__ = "0.1.0"
__all__ = ["BuddyGPTConfig", "BuddyGPTForCausalLM", "BuddyGPTModel", "__version__", "extend", "load_recipe"]

_HOMES = {
    "extend": "buddygpt.model",
    "load_recipe": "buddygpt.recipe.loader",
    "BuddyGPTConfig": "buddygpt.model",
    "BuddyGPTModel": "buddygpt.model",
    "BuddyGPTForCausalLM": "buddygpt.model",
}


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that `import buddygpt` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'buddygpt' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
