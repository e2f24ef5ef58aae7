"""Data sets by their short names: where they lie on the hubs, which files, what their rows look like, what to mind.

A data set in a known row shape is one entry in `pretrain.yaml`, `sft.yaml` or `dpo.yaml`; nothing else names one.
"""

from buddygpt.data.catalog.entries import Entry, Kind, Part, as_hub, entries, find

__all__ = ["Entry", "Kind", "Part", "as_hub", "entries", "find"]
