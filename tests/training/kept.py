"""A keeper over samples that lie in a list."""

from buddygpt.data.windows import Passing
from buddygpt.events import silent
from buddygpt.recipe.guard import GuardSection
from buddygpt.training.checkpoints import Shelf
from buddygpt.training.guard import Guard
from buddygpt.training.keeper import Keeper


class Listed:
    """Samples of one source in their order, over and over."""

    name = "listed"

    def __init__(self, samples):
        self.samples, self.sources = samples, [self]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index % len(self.samples)]

    def locate(self, index):
        return 0, index


def keep(folder, samples, batch, *, guard=None, emit=silent, keep=2, keep_every=None, **files):
    """A keeper of a run in `folder`; `samples` is a Passing, or a list."""
    order = samples if isinstance(samples, Passing) else Passing(Listed(samples))
    shelf = Shelf(folder / "checkpoints", keep, keep_every, 0, files)
    return Keeper(folder, shelf, Guard(guard or GuardSection()), order, batch, str, emit)
