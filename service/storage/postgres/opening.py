"""Open a database of PostgreSQL that is to be served."""

from service.storage.postgres import schema
from service.storage.postgres.store import Store


def open_store(  # noqa: PLR0913 - as the arguments of `Store`.
    url: str, *, migrate: bool, busy_timeout: float, max_pending_writes: int, snapshot_per_turn: bool, slow_ms: float
) -> Store:
    """Do what `open_store` in `service.storage.kinds` says; with `migrate`, pending migrations are applied first.

    The other arguments are those of `Store`.
    """
    if migrate:
        schema.migrate(url)
    schema.connect(url).close()
    return Store(
        url,
        busy_timeout=busy_timeout,
        max_pending_writes=max_pending_writes,
        snapshot_per_turn=snapshot_per_turn,
        slow_ms=slow_ms,
    )
