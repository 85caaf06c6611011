"""Tokens: their form, what they are good for, and how they begin, change and end, with the rules and the commands."""

import hmac
import json
import re
import string
import zlib
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from click.testing import CliRunner, Result
from programs import REFUSED, run_sql, writing

from service import sessions, tokens
from service.__main__ import cli
from service.errors import InvalidPayload
from service.tokens import EXPIRED, MISTYPED, REPLACED, REVOKED, SCOPES, UNKNOWN, Unusable

pytestmark = pytest.mark.both

FORM = re.compile(r"enr_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
HOUR = timedelta(hours=1)


def parts(token: str) -> tuple[str, str, str]:
    """Give the id, the secret and the check of a token."""
    found = FORM.fullmatch(token)
    assert found
    return found[1], found[2], found[3]


def move_clock(monkeypatch: pytest.MonkeyPatch, later: timedelta) -> None:
    """Let the rules of tokens and sessions believe that it is later."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            assert tz is UTC
            return datetime.now(UTC) + later

    monkeypatch.setattr(tokens, "datetime", Later)
    monkeypatch.setattr(sessions, "datetime", Later)


def why_not(db: pw.Database, token: str) -> str:
    """Tell why a token does not count."""
    with pytest.raises(Unusable) as raised:
        tokens.find_token(db, token)
    return str(raised.value)


# Form


def test_a_token_has_its_form(db: pw.Database) -> None:
    """A token is its id, 256 random bits, and the CRC-32 of all before it; of the secret only a hash is stored."""
    made = {tokens.create_token(db, "desk", ["read"]) for _ in range(50)}
    assert len({parts(token)[0] for token in made}) == len({parts(token)[1] for token in made}) == 50
    for token in made:
        token_id, secret, check = parts(token)
        number = sum(LETTERS.index(letter) * 62**place for place, letter in enumerate(reversed(check)))
        assert number == zlib.crc32(token[:-6].encode())
        ((kept,),) = db.execute_sql("SELECT hash FROM api_tokens WHERE id = ?", (token_id,)).fetchall()
        assert kept == sha256(secret.encode()).digest()
    assert {letter for token in made for letter in parts(token)[1][1:]} == set(LETTERS)


def test_the_secret_is_not_in_the_database(db: pw.Database, path: Path | str) -> None:
    """Neither the secret of a token nor the cookie of a session is anywhere in the file, or in the rows."""
    token = tokens.create_token(db, "desk", ["read"])
    cookie, _ = sessions.open_session(db, token)
    if isinstance(path, Path):
        db.close()
        kept = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    else:
        tables = "api_tokens", "api_sessions"
        rows = [row for table in tables for row in db.execute_sql(f"SELECT * FROM {table}")]
        values = [value for row in rows for value in row]
        kept = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
    token_id, secret, _ = parts(token)
    assert token_id.encode() in kept
    assert secret.encode() not in kept
    assert cookie.encode() not in kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda _: "enr_",
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: token.replace("enr", "ENR"),
        lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"),
        lambda token: token[:20] + ("a" if token[20] != "a" else "b") + token[21:],
        lambda token: token[:4] + ("a" if token[4] != "a" else "b") + token[5:],
        lambda token: token[:20] + "é" + token[21:],
    ],
)
def test_a_mistyped_token_is_told_without_the_database(db: pw.Database, spoil: Any) -> None:
    """Whatever is no whole token is told from one that no longer counts, though the database is not there."""
    token = tokens.create_token(db, "desk", ["read"])
    db.execute_sql("DROP TABLE api_sessions")
    db.execute_sql("DROP TABLE api_tokens")
    assert why_not(db, spoil(token)) == MISTYPED
    with pytest.raises(pw.DatabaseError):
        tokens.find_token(db, token)


# Scopes


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        (["read"], {"read"}),
        (["enroll"], {"enroll", "read"}),
        (["write"], {"write", "read"}),
        (["import"], {"import"}),
        (["metrics"], {"metrics"}),
        (["override"], {"override"}),
        (["override", "enroll", "enroll"], {"override", "enroll", "read"}),
        (["admin"], set(SCOPES)),
    ],
)
def test_scopes_include_others(db: pw.Database, scopes: list[tokens.Scope], granted: set[str]) -> None:
    """Who may enroll or write may read, and an admin may do everything; nothing else includes anything."""
    found = tokens.find_token(db, tokens.create_token(db, "desk", scopes))
    assert found.scopes == granted
    assert found.actor == f"token:{found.token_id}"
    assert {*tokens.show_token(db, found.token_id).scopes} == {*scopes}


def test_a_word_that_is_no_scope_grants_nothing() -> None:
    """What another program has written into the scopes opens nothing."""
    assert tokens.granted(["everything", "", "READ"]) == set()


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "\n"])
def test_a_token_has_a_name(db: pw.Database, name: str) -> None:
    """The name of a token has the rules of every name."""
    with pytest.raises(InvalidPayload):
        tokens.create_token(db, name, ["read"])
    assert not tokens.any_token(db)


# Beginning and end


def test_a_token_counts_until_it_expires(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token with an end counts until then, one without always; and the grant says when it ends."""
    forever, token = tokens.create_token(db, "a", ["read"]), tokens.create_token(db, "b", ["read"], tokens.moment(HOUR))
    ends = tokens.find_token(db, token).ends
    assert abs(ends - (datetime.now(UTC) + HOUR).timestamp()) < 5
    assert tokens.find_token(db, forever).ends == float("inf")
    move_clock(monkeypatch, HOUR - timedelta(minutes=1))
    assert tokens.find_token(db, token).ends == ends
    move_clock(monkeypatch, HOUR + timedelta(minutes=1))
    assert why_not(db, token) == EXPIRED
    assert tokens.find_token(db, forever)
    assert {each.name: each.state for each in tokens.list_tokens(db)} == {"a": "active", "b": "expired"}


def test_a_revoked_token_counts_no_more(db: pw.Database) -> None:
    """A revoked token stays in the list with the moment of its first revocation, and is never deleted."""
    assert not tokens.any_token(db)
    token = tokens.create_token(db, "desk", ["read"])
    token_id = parts(token)[0]
    first = tokens.revoke_token(db, token_id).revoked_at
    assert first
    assert tokens.revoke_token(db, token_id).revoked_at == first
    assert why_not(db, token) == REVOKED
    assert tokens.any_token(db)
    assert [each.state for each in tokens.list_tokens(db)] == ["revoked"]


@pytest.mark.parametrize("other", ["another id", "another secret"])
def test_a_stranger_learns_nothing(db: pw.Database, other: str) -> None:
    """A whole token that was never made gets one answer, whether its id is there, revoked, or not."""
    token = tokens.create_token(db, "desk", ["read"])
    token_id, secret, _ = parts(token)
    body = f"enr_{'0' * 8}_{secret}" if other == "another id" else f"enr_{token_id}_{secret[::-1]}"
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = LETTERS[digit] + check
    for _ in range(2):
        assert why_not(db, body + check) == UNKNOWN
        tokens.revoke_token(db, token_id)


def test_rotation_with_grace(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation the new secret counts, and the old one for the grace alone; what it may do stays."""
    old = tokens.create_token(db, "desk", ["enroll"])
    token_id = parts(old)[0]
    new = tokens.rotate_token(db, token_id, HOUR)
    assert parts(new)[0] == token_id
    assert parts(new)[1] != parts(old)[1]
    assert tokens.find_token(db, new).scopes == tokens.find_token(db, old).scopes == {"enroll", "read"}
    assert abs(tokens.find_token(db, old).ends - (datetime.now(UTC) + HOUR).timestamp()) < 5
    assert tokens.find_token(db, new).ends == float("inf")
    move_clock(monkeypatch, HOUR + timedelta(minutes=1))
    assert why_not(db, old) == REPLACED
    assert tokens.find_token(db, new)
    newest = tokens.rotate_token(db, token_id)
    assert why_not(db, new) == REPLACED
    assert why_not(db, old) == UNKNOWN
    assert tokens.find_token(db, newest)


def test_the_grace_ends_with_the_token(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the grace, neither secret outlives the token, nor its revocation."""
    old = tokens.create_token(db, "desk", ["read"], tokens.moment(HOUR))
    new = tokens.rotate_token(db, parts(old)[0], 5 * HOUR)
    assert tokens.find_token(db, old).ends == tokens.find_token(db, new).ends
    with monkeypatch.context() as patched:
        move_clock(patched, 2 * HOUR)
        assert why_not(db, old) == why_not(db, new) == EXPIRED
    tokens.revoke_token(db, parts(old)[0])
    assert why_not(db, old) == why_not(db, new) == REVOKED


def test_what_has_ended_is_not_rotated(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation brings no token back that was revoked or has expired, nor one that never was."""
    revoked, expired = (parts(tokens.create_token(db, "desk", ["read"], tokens.moment(HOUR)))[0] for _ in range(2))
    tokens.revoke_token(db, revoked)
    move_clock(monkeypatch, 2 * HOUR)
    for token_id, said in ((revoked, "is revoked"), (expired, "is expired"), ("nobody00", "No token has the id")):
        with pytest.raises((tokens.TokenNotFound, tokens.TokenEnded), match=said):
            tokens.rotate_token(db, token_id)
    with pytest.raises(tokens.TokenNotFound):
        tokens.revoke_token(db, "nobody00")


def test_hashes_are_compared_in_constant_time(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison of a hash is one that takes as long whatever differs; and what it says is what counts."""
    token = tokens.create_token(db, "desk", ["read"])
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert why_not(db, token) == UNKNOWN
    digest = sha256(parts(token)[1].encode()).digest()
    assert compared == [(digest, digest)]
    tokens.rotate_token(db, parts(token)[0], HOUR)
    assert why_not(db, token) == UNKNOWN
    assert compared[2] == (digest, digest)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE api_tokens SET hash = ''",
        "UPDATE api_tokens SET expires_at = 'never'",
        "UPDATE api_tokens SET previous_until = '2030'",
        "UPDATE api_sessions SET ends_at = 'never'",
    ],
)
def test_what_would_count_for_ever_is_refused(db: pw.Database, path: Path | str, sql: str) -> None:
    """No other program writes a moment that would never come, nor a hash that is none."""
    sessions.open_session(db, tokens.create_token(db, "desk", ["read"]))
    with pytest.raises(REFUSED, match=r"(?i)check"):
        run_sql(path, sql)


# Sessions


def ended(db: pw.Database, cookie: str) -> bool:
    """Tell whether a session has ended."""
    try:
        return not sessions.find_session(db, cookie)
    except Unusable:
        return True


def test_a_session_is_its_tokens(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session may do what its token may, for twelve hours, or until it is closed."""
    token = tokens.create_token(db, "desk", ["enroll"])
    cookie, shown = sessions.open_session(db, token)
    other, _ = sessions.open_session(db, token)
    found = sessions.find_session(db, cookie)
    assert found.actor == f"token:{parts(token)[0]}"
    assert found.scopes == {"enroll", "read"}
    assert (shown.actor, shown.name, shown.scopes) == (found.actor, "desk", ["enroll", "read"])
    assert abs(found.ends - (datetime.now(UTC) + timedelta(hours=12)).timestamp()) < 5
    sessions.close_session(db, cookie)
    assert ended(db, cookie)
    assert sessions.find_session(db, other)
    assert ended(db, "")
    move_clock(monkeypatch, timedelta(hours=12, minutes=1))
    assert ended(db, other)
    sessions.open_session(db, token)
    assert db.execute_sql("SELECT count(*) FROM api_sessions").fetchone() == (1,)


@pytest.mark.parametrize("way", ["revoked", "rotated", "expired", "old secret"])
def test_a_session_ends_with_its_token(db: pw.Database, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A session ends when its token is revoked, rotated or has expired, or when the grace of its secret is over."""
    token = tokens.create_token(db, "desk", ["read"], tokens.moment(HOUR) if way == "expired" else None)
    if way == "old secret":
        tokens.rotate_token(db, parts(token)[0], HOUR)
    cookie, shown = sessions.open_session(db, token)
    found = sessions.find_session(db, cookie)
    assert abs(datetime.fromisoformat(str(shown.ends_at)).timestamp() - found.ends) < 0.01
    if way == "revoked":
        tokens.revoke_token(db, parts(token)[0])
    if way == "rotated":
        tokens.rotate_token(db, parts(token)[0], HOUR)
    if way in {"expired", "old secret"}:
        move_clock(monkeypatch, HOUR + timedelta(minutes=1))
    assert ended(db, cookie)


def test_a_session_wants_a_token_that_counts(db: pw.Database) -> None:
    """No session begins with a token that was revoked, and one that other programs left there is of no use."""
    token = tokens.create_token(db, "desk", ["read"])
    cookie, _ = sessions.open_session(db, token)
    db.execute_sql("UPDATE api_tokens SET revoked_at = ?", (tokens.moment(),))
    with pytest.raises(Unusable, match="revoked"):
        sessions.open_session(db, token)
    assert ended(db, cookie)


# The commands


def command(path: Path | str, *args: str) -> Result:
    """Run `token` in this process on a file."""
    return CliRunner().invoke(cli, ["token", args[0], "--database-url", str(path), *args[1:]])


def test_create_prints_the_token_alone(db: pw.Database, path: Path) -> None:
    """On stdout is the token and nothing else; what is to be said of it, without its secret, is on stderr."""
    made = command(path, "create", "--name", "Desk 1", "--scope", "enroll", "--scope", "override", "--expires", "90d")
    assert made.exit_code == 0
    token = made.stdout.removesuffix("\n")
    token_id, secret, _ = parts(token)
    found = tokens.find_token(db, token)
    assert found.scopes == {"enroll", "override", "read"}
    assert abs(found.ends - (datetime.now(UTC) + timedelta(days=90)).timestamp()) < 5
    for word in (token_id, "Desk 1", "enroll, override", tokens.show_token(db, token_id).expires_at, "not shown again"):
        assert str(word) in made.stderr
    assert secret not in made.stderr
    lasting = command(path, "create", "--name", "x", "--scope", "admin")
    assert tokens.find_token(db, lasting.stdout.strip()).ends == float("inf")
    assert "until it is revoked" in lasting.stderr


@pytest.mark.parametrize(
    ("duration", "seconds"), [("30m", 1800), ("24h", 86_400), ("1d", 86_400), ("2w", 1_209_600), ("99999w", None)]
)
def test_durations(db: pw.Database, path: Path, duration: str, seconds: int | None) -> None:
    """A duration is a number and a unit, up to two thousand years."""
    made = command(path, "create", "--name", "x", "--scope", "read", "--expires", duration)
    ends = tokens.find_token(db, made.stdout.strip()).ends
    assert seconds is None or abs(ends - datetime.now(UTC).timestamp() - seconds) < 5


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["create", "--name", "x"], "Missing option '--scope'"),
        (["create", "--scope", "read"], "Missing option '--name'"),
        (["create", "--name", "x", "--scope", "all"], "'all' is not one of 'read', 'enroll'"),
        (["create", "--name", " ", "--scope", "read"], "Invalid value for '--name': must have a character"),
        *(
            (["create", "--name", "x", "--scope", "read", "--expires", text], "such as 30m, 24h, 90d or 52w")
            for text in ("", "0d", "90", "d", "-1d", "1.5h", "90 d", "90D", "100000d", "1y")
        ),
        (["rotate"], "Missing argument 'ID'"),
        (["rotate", "x", "--grace", "soon"], "'soon' is not a number and a unit"),
        (["revoke"], "Missing argument 'ID'"),
    ],
)
def test_bad_usage(db: pw.Database, path: Path, args: list[str], said: str) -> None:
    """What cannot be meant is a usage error, which says what can; nothing is made, and nothing is on stdout."""
    result = command(path, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not tokens.any_token(db)


def test_the_list_has_no_secrets(db: pw.Database, path: Path) -> None:
    """The list has every token that was ever made, as a table and as JSON, and of none the secret or its hash."""
    empty = command(path, "list")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "No token was ever made.\n")
    assert json.loads(command(path, "list", "--json").stdout) == []
    made = [command(path, "create", "--name", name, "--scope", "read").stdout.strip() for name in ("Ada 学", "b")]
    ids = [parts(token)[0] for token in made]
    tokens.revoke_token(db, ids[1])
    tokens.note_use(db, ids[0], "2026-09-01")
    table, rows = command(path, "list").stdout, json.loads(command(path, "list", "--json").stdout)
    first, *lines = (line.split(maxsplit=6) for line in table.splitlines())
    assert first == ["ID", "STATE", "SCOPES", "CREATED", "EXPIRES", "USED", "NAME"]
    today = tokens.moment()[:10]
    assert sorted(lines) == sorted(
        [
            [ids[0], "active", "read", today, "never", "2026-09-01", "Ada 学"],
            [ids[1], "revoked", "read", today, "never", "never", "b"],
        ]
    )
    assert {row["id"]: (row["name"], row["scopes"], row["state"], row["last_used_on"]) for row in rows} == {
        ids[0]: ("Ada 学", ["read"], "active", "2026-09-01"),
        ids[1]: ("b", ["read"], "revoked", None),
    }
    for token in made:
        for secret in (parts(token)[1], sha256(parts(token)[1].encode()).hexdigest()):
            assert secret not in table
            assert secret not in str(rows)


def test_rotate_and_revoke(db: pw.Database, path: Path) -> None:
    """A rotation prints the new token alone, and says how long the old one counts; a revocation says since when."""
    old = command(path, "create", "--name", "desk", "--scope", "read").stdout.strip()
    token_id = parts(old)[0]
    rotated = command(path, "rotate", token_id, "--grace", "24h")
    new = rotated.stdout.removesuffix("\n")
    assert tokens.find_token(db, new).token_id == tokens.find_token(db, old).token_id == token_id
    assert f"The old secret counts until {tokens.show_token(db, token_id).previous_until}." in rotated.stderr
    assert parts(new)[1] not in rotated.stderr
    newest = command(path, "rotate", token_id)
    assert "The old secret counts no more." in newest.stderr
    assert why_not(db, new) == REPLACED
    for _ in range(2):
        revoked = command(path, "revoke", token_id)
        assert revoked.exit_code == 0
        assert f"Token {token_id} of desk counts no more" in revoked.stdout
    assert why_not(db, newest.stdout.strip()) == REVOKED
    refused = command(path, "rotate", token_id)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "is revoked" in refused.stderr


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_an_id_that_is_none(path: Path, verb: str) -> None:
    """An id that no token has is told in one line, which says how to see all ids."""
    result = command(path, verb, "nobody00")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "No token has the id 'nobody00'. To see all: python -m service token list --database-url " in result.stderr


@pytest.mark.parametrize(
    "args", [["create", "--name", "x", "--scope", "read"], ["list"], ["rotate", "x"], ["revoke", "x"]]
)
def test_a_database_that_is_not_there(tmp_path: Path, args: list[str]) -> None:
    """Without a database each command says how to make one, and makes none."""
    result = command(tmp_path / "none.db", *args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Run: python -m service migrate" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_database_that_is_locked(path: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program writes for longer than BUSY_TIMEOUT, no token is made, and one line says why."""
    monkeypatch.setenv("BUSY_TIMEOUT", "0")
    with writing(path):
        result = command(path, "create", "--name", "x", "--scope", "read")
    assert (result.exit_code, result.stdout) == (1, "")
    why = "database is locked" if isinstance(path, Path) else "canceling statement due to lock timeout"
    assert f"The database {path} cannot be used: {why}." in result.stderr
