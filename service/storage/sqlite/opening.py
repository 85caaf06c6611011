"""Open a database file that is to be served."""

from service.storage.sqlite import schema
from service.storage.sqlite.connections import enter_wal
from service.storage.sqlite.file import check_writable
from service.storage.sqlite.store import Store
from service.storage.sqlite.urls import database_path


def open_store(  # noqa: PLR0913 - as the arguments of `Store`.
    url: str, *, migrate: bool, busy_timeout: float, max_pending_writes: int, snapshot_per_turn: bool, slow_ms: float
) -> Store:
    """Do what `open_store` in `service.storage.kinds` says; with `migrate`, pending migrations are applied first.

    The other arguments are those of `Store`.
    """
    check_writable(database_path(url))
    if migrate:
        schema.migrate(url)
    db = schema.connect(url)
    db.timeout = 0  # If another connection is in the way of WAL mode, do not wait: the store tries again later.
    enter_wal(db)
    db.close()
    return Store(
        url,
        busy_timeout=busy_timeout,
        max_pending_writes=max_pending_writes,
        snapshot_per_turn=snapshot_per_turn,
        slow_ms=slow_ms,
    )
