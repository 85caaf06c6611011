"""Writes, for `make schema`, what the migrations make: schema.sql of SQLite, and catalog.sql of PostgreSQL.

`python -m tests.schema_sql postgresql` writes the second one alone, on the server of the tests.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from service import migrate
from service.storage import migrating
from service.storage.sqlite import drift

HEAD = """\
-- The schema of the service as its migrations leave it: its tables, and the indexes and triggers on each.
-- It is not run to make a database, the migrations are. `connect` and `serve` compare a database with it,
-- and `python -m service repair` takes from it what is missing.
-- Do not edit it: after a new migration write it anew with `make schema`; a test holds it to the migrations.
"""


def written() -> str:
    """Give the file's text: tables in the order of the migrations, what is on each by type and name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        migrate(path)
        with closing(sqlite3.connect(path)) as db:
            rows = db.execute(
                """SELECT made.type, made.name, made.sql FROM sqlite_master AS made
                JOIN sqlite_master AS place ON place.type IN ('table', 'view') AND place.name = made.tbl_name
                WHERE made.sql IS NOT NULL AND place.name NOT IN ('sqlite_sequence', ?)
                ORDER BY place.rowid, made.type <> 'table', made.type, made.name""",
                (migrating.HISTORY,),
            ).fetchall()
    made = [drift.create_table(name, drift.parse(sql)) if kind == "table" else sql for kind, name, sql in rows]
    return "\n".join([HEAD, *(f"{sql};\n" for sql in made)])


def catalog() -> str:
    """Give the text of catalog.sql."""
    # PostgreSQL and its driver are asked for here alone; the folder of the tests is not on the path of `make schema`.
    sys.path.append(str(Path(__file__).parent))
    import postgresql  # noqa: PLC0415

    from service.storage.postgres import connections, drift  # noqa: PLC0415

    with postgresql.server() as server, server.database() as url:
        migrate(url)
        with closing(connections.open_database(url)) as db:
            return drift.written(drift.existing(db))


if __name__ == "__main__":
    if "postgresql" not in sys.argv:
        drift.SCHEMA.write_text(written(), "utf-8")
    (drift.SCHEMA.parents[1] / "postgres" / "catalog.sql").write_text(catalog(), "utf-8")
