"""Close every store before this process forks, as gunicorn's preload and multiprocessing make it do.

A child process must not inherit SQLite's connections. The operating system gives the child none of their locks on the
file, but SQLite in the child would believe that every connection that it opens on the file has those locks. Nor may it
inherit those to a server, which would get the statements of two processes on one connection. A fork does not copy
threads either, so a lock that another thread holds would stay locked in the child for ever. So before a fork each store
finishes the writes that it has accepted and closes its connections; after the fork, parent and child each open the
database anew.
"""

import os
import threading
from functools import cache
from typing import Protocol
from weakref import ref


class Open(Protocol):
    """An object that has a database open: a store."""

    def pause(self) -> None:
        """Close everything, and make every caller wait until `resume`."""

    def resume(self, *, forked: bool = False) -> None:
        """Serve callers again; `forked` is true in the child."""


def pause_at_forks(store: Open) -> None:
    """Pause a store at every fork from now on.

    The reference to the store is weak, so a store that nothing else refers to is forgotten.
    """
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
