"""What torch holds, counted at every operation."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(TorchDispatchMode):
    """Bytes of all living storages that operations within it have made, and of `given` tensors; and their height."""

    def __init__(self, *given):
        super().__init__()
        self.now = self.most = 0
        self._living = set()
        for tensor in given:
            self._take(tensor)

    def _take(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self._living:
            self._living.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, key, count):
        self._living.discard(key)
        self.now -= count

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._take(leaf)
        self.most = max(self.most, self.now)
        return result
