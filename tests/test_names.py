"""The names of a student: in parts, as shown, and the e-mail address."""

from typing import Any

import pytest
from answers import faults
from starlette.testclient import TestClient

ADA = {"given_name": "Ada", "family_name": "Byron"}


def test_a_name_is_made_of_its_parts(client: TestClient) -> None:
    """Without a name the two parts make it; the name follows a change of them, by PATCH and by PUT."""
    made = client.post("/students", json={**ADA, "external_id": "S1"})
    assert (made.status_code, made.json()["name"]) == (201, "Ada Byron")
    assert client.patch("/students/1", json={"family_name": "King"}).json()["name"] == "Ada King"
    assert client.put("/students/by-external-id/S1", json={"given_name": "A."}).json()["name"] == "A. King"
    assert client.put("/students/by-external-id/S1", json=ADA).json()["name"] == "Ada Byron"
    kept = client.patch("/students/1", json={"given_name": None}).json()
    assert (kept["name"], kept["given_name"], kept["family_name"]) == ("Ada Byron", None, "Byron")
    assert client.put("/students/by-external-id/S2", json=ADA).json()["name"] == "Ada Byron"


def test_a_name_of_its_own_stays(client: TestClient) -> None:
    """A name that was not made of the parts, or is given with them, does not follow them."""
    client.post("/students", json={**ADA, "name": "Countess"})
    assert client.patch("/students/1", json={"family_name": "King"}).json()["name"] == "Countess"
    assert client.patch("/students/1", json={**ADA, "name": "Ada B."}).json()["name"] == "Ada B."
    assert client.patch("/students/1", json={"given_name": "Augusta"}).json()["name"] == "Ada B."
    client.post("/students", json={"name": "Bo"})
    assert client.patch("/students/2", json=ADA).json()["name"] == "Bo"


@pytest.mark.parametrize("payload", [{}, {"given_name": "Ada"}, {"family_name": "B"}, {**ADA, "given_name": None}])
def test_one_part_is_no_name(client: TestClient, payload: dict[str, str | None]) -> None:
    """Without a name both parts are wanted, by POST and by a PUT that makes the student."""
    assert faults(client.post("/students", json=payload)) == ["#/name"]
    assert faults(client.put("/students/by-external-id/S1", json=payload)) == ["#/name"]
    assert client.get("/students").json() == []


def test_parts_that_make_too_long_a_name(client: TestClient) -> None:
    """The name that parts make has at most 200 characters; beside a name of its own they may be longer."""
    long = {"given_name": "a" * 100, "family_name": "b" * 100}
    assert faults(client.post("/students", json=long)) == ["#/name"]
    made = client.post("/students", json={**long, "family_name": "b" * 99}).json()
    assert len(made["name"]) == 200
    assert faults(client.patch("/students/1", json=long)) == ["#/name"]
    assert client.get("/students/1").json() == made
    other = client.post("/students", json={**long, "name": "Ab"}).json()
    changed = client.patch("/students/2", json={"email": "ab@example.org", "given_name": "c" * 200})
    assert changed.json() == {**other, "email": "ab@example.org", "given_name": "c" * 200}


@pytest.mark.parametrize("key", ["external_id", "given_name", "family_name", "email"])
def test_null_removes(client: TestClient, key: str) -> None:
    """By PATCH null takes away what may be absent, and nothing else."""
    given = {"name": "Ada", "external_id": "S1", **ADA, "email": "ada@example.org"}
    made = client.post("/students", json=given).json()
    assert made == {"id": 1, **given}
    assert client.patch("/students/1", json={key: None}).json() == {**made, key: None}
    assert client.get("/students/1").json() == {**made, key: None}


@pytest.mark.parametrize(
    "email", ["ada@example.org", "a+b@[127.0.0.1]", "ü@bücher.example", "a" * 252 + "@b", "O'Neil@x"]
)
def test_an_address_is_kept_as_it_is(client: TestClient, email: str) -> None:
    """An address of at most 254 characters around one @ comes back as it was, but for the space around it."""
    assert client.post("/students", json={"name": "Ada", "email": f" {email}\n"}).json()["email"] == email
    assert client.patch("/students/1", json={"email": email}).json()["email"] == email


WRONG: list[Any] = ["", "ada", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a" * 253 + "@b", 7, True, ["a@b"], "a\0@b"]


@pytest.mark.parametrize("email", WRONG)
def test_what_is_no_address_is_refused(client: TestClient, email: object) -> None:
    """A text without one @ between other characters, or with white space, or too long, is no address."""
    client.post("/students", json={"name": "Bo"})
    for answer in (
        client.post("/students", json={"name": "Ada", "email": email}),
        client.patch("/students/1", json={"email": email}),
        client.put("/students/by-external-id/S1", json={"name": "Ada", "email": email}),
    ):
        assert faults(answer) == ["#/email"]
    assert [row["email"] for row in client.get("/students").json()] == [None]
