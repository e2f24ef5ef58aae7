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


def keep(folder, samples, batch, *, guard=None, emit=silent):
    """A keeper of a run in `folder` over a list of samples."""
    shelf = Shelf(folder / "checkpoints", 2)
    return Keeper(folder, shelf, Guard(guard or GuardSection()), Passing(Listed(samples)), batch, str, emit)
