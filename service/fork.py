"""What a fork does to whoever has a database open, which gunicorn's preload and multiprocessing do.

SQLite's connections must not go along: the child has none of their locks, and yet SQLite would take it that each
connection that the child opens on the same file has them. Nor do threads go along, and a lock that another thread
holds stays locked for ever. So before a fork each store finishes what it has accepted and closes what it has open;
behind it, parent and child open the file anew.
"""

import os
import threading
from functools import cache
from typing import Protocol
from weakref import ref


class Open(Protocol):
    """What has a database open."""

    def pause(self) -> None:
        """Let go of everything, and keep whoever wants it waiting."""

    def resume(self, *, forked: bool = False) -> None:
        """Go on, in the parent or in the child."""


def pause_at_forks(store: Open) -> None:
    """Have a store pause while this program forks, for as long as somebody else holds the store."""
    known = _known()
    known.add(ref(store, known.discard))


@cache
def _known() -> "set[ref[Open]]":
    known: set[ref[Open]] = set()
    paused: list[Open] = []
    forking = threading.Lock()

    def before() -> None:
        forking.acquire()
        stores = [store for each in tuple(known) if (store := each()) is not None]
        for store in sorted(stores, key=id):
            store.pause()
            paused.append(store)

    def after(*, forked: bool) -> None:
        while paused:
            paused.pop().resume(forked=forked)
        forking.release()

    os.register_at_fork(
        before=before, after_in_parent=lambda: after(forked=False), after_in_child=lambda: after(forked=True)
    )
    return known
