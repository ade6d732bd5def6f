"""The garbage collector of a service, set so that nobody waits for it."""

import gc

__all__ = ["spare_the_start"]

_YOUNG_OBJECTS = 10_000


def spare_the_start() -> None:
    """Leave what exists now out of every collection; call it when a service is ready.

    Modules and classes stay as long as the process, and a full collection that walks them stops
    everything for some 10 ms. Messages make no cycles, so young objects are looked at seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
