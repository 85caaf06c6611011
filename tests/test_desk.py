"""The desk as it is served: its page and its files, and nothing else, to everyone, wherever the service is mounted."""

import json
import re
from pathlib import Path

import pictures
import pytest
from conftest import ROOT
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service import Settings, create_app, desk
from service.errors import SetupError
from service.http.problems import PROBLEMS

FOLDER = ROOT / "service" / "desk"
SCRIPTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.js")}
WORDS = json.loads((FOLDER / "words.json").read_text("utf-8"))


def test_each_file_is_served(client: TestClient) -> None:
    """Each file beside the module is the page or one of its files, and comes as what it is."""
    assert {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ""}} == {desk.PAGE, *desk.FILES}
    for name in desk.FILES:
        answer = client.get(f"/desk/{name}")
        assert answer.content == (FOLDER / name).read_bytes()
        assert answer.headers["content-type"] == desk.TYPES[name.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_may_do_nothing_else(client: TestClient) -> None:
    """The policy lets the page load from its own service alone, and the page has neither scripts nor styles in it."""
    answer = client.get("/desk")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"<style|<script(?![^>]* src=)|\s(on\w+|style)=", answer.text)


def test_a_file_is_loaded_once(client: TestClient) -> None:
    """A browser keeps a file, and is told whether it has changed; whoever asks for another one gets it whole."""
    first = client.get("/desk/desk.js")
    assert first.headers["cache-control"] == "no-cache"
    for sent in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = client.get("/desk/desk.js", headers={"if-none-match": sent})
        assert (again.status_code, again.content) == (304, b"")
        assert {name: again.headers[name] for name in ("etag", "cache-control", "x-content-type-options")} == {
            name: first.headers[name] for name in ("etag", "cache-control", "x-content-type-options")
        }
    assert client.get("/desk/feed.js", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_words_of_a_schools_own(path: Path, tmp_path: Path) -> None:
    """A school's own words stand in the place of the desk's, and what the school's file lacks stays."""
    own = {"language": "de", "courses": "Module", "list.all": {"one": "eins", "other": "{n} da"}, "gone": "weg"}
    file = tmp_path / "words.json"
    file.write_text(json.dumps(own), "utf-8")
    with TestClient(create_app(Settings(database_url=str(path), desk_words=str(file)))) as client:
        assert client.get("/desk/words.json").json() == WORDS | own
        assert client.get("/desk/words.json").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("{", "truncated"),
        ('{"courses": 1}', "$[...]"),
        ('{"list.all": {"one": "eins"}, "language": "deutsch, bitte", "direction": "up"}', "list.all, language, direc"),
        ('{"language": {"other": "de"}}', "language"),
    ],
)
def test_words_that_cannot_be_used(path: Path, tmp_path: Path, text: str | None, told: str) -> None:
    """A file that is not there, or with which the desk could not be shown, is refused before anything is served."""
    file = tmp_path / "words.json"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(SetupError, match=re.escape(told)):
        create_app(Settings(database_url=str(path), desk_words=str(file)))


@pytest.mark.parametrize(
    "name", ["desk.html", "__init__.py", "..%2Fdesk.css", "%2e%2e/desk.css", "", "desk.css/", "x.js"]
)
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    """What is not a file of the desk is not there, wherever the path would lead to."""
    answer = client.get(f"/desk/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_it_is_small() -> None:
    """The page, its modules and its stylesheet are under 100 KB in all, and each is read in one sitting."""
    sizes = {name: (FOLDER / name).stat().st_size for name in (desk.PAGE, *desk.FILES)}
    assert sum(size for name, size in sizes.items() if name.endswith((".html", ".css", ".js"))) < 100 * 1024
    assert sizes[desk.WORDS] < 16 * 1024
    assert [name for name, text in SCRIPTS.items() if len(text.splitlines()) > 300] == []


def test_it_loads_nothing_from_elsewhere() -> None:
    """No file names another host, and all that a file loads is one of the desk's files."""
    for name in (desk.PAGE, *desk.FILES):
        text = (FOLDER / name).read_text("utf-8")
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, name
    loaded = set(re.findall(r'(?:href|src)="desk/([^"]+)"', (FOLDER / desk.PAGE).read_text("utf-8")))
    imported = {each for text in SCRIPTS.values() for each in re.findall(r'(?:from|import\() ?"\./([^"]+)"', text)}
    views = re.search(r"VIEWS = (\[.*\]);", SCRIPTS["desk.js"])
    assert views
    imported |= {f"{each[0]}.js" for each in json.loads(views[1])}
    assert loaded | imported == {*desk.FILES}


def test_no_data_becomes_html() -> None:
    """No script hands a text to anything that reads HTML or runs scripts."""
    for name, text in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )


def test_each_word_is_there() -> None:
    """Each key in a script has its words, and all words are used; those of refusals are of codes that there are."""
    text = "\n".join(SCRIPTS.values())
    keys = {key for key in WORDS if key not in {"language", "direction"}}
    refusals = {key for key in keys if key.startswith("refusal.")}
    assert {key.removeprefix("refusal.") for key in refusals} <= PROBLEMS.keys()
    plain = set(re.findall(r'"([\w.-]+)"', text))
    forms = re.findall(r'(?:openForm|perform)\(\s*"([\w.]+)"', text)
    asked = {f"{form}.{part}" for form in forms for part in ("title", "action")}
    asked |= set(re.findall(r'\b(?:t|say)\(\s*"([\w.-]+)"', text))
    assert asked <= keys
    patterns = [re.escape(each) for each in re.findall(r"`([^`]*)`", text)]
    stems = [re.compile(re.sub(r"\\\$\\\{.*?\\\}", r"[\\w.-]+", each)) for each in patterns]
    unused = {key for key in keys - refusals - asked - plain if not any(stem.fullmatch(key) for stem in stems)}
    assert unused == set()


def test_the_pictures_are_small() -> None:
    """The pages show the desk in pictures of at most 60 KB, and a repository is not heavy with them."""
    sizes = {path.name: path.stat().st_size for path in (ROOT / "service" / "docs" / "pictures").iterdir()}
    assert {name.partition(".")[0] for name in sizes} == {
        f"{view}-{sight}" for view in pictures.VIEWS for sight in ("light", "dark", "phone")
    }
    assert max(sizes.values()) <= 60_000
    assert sum(sizes.values()) <= 700_000


def test_it_is_open_to_everyone(path: Path) -> None:
    """Without a token the page and its files come, as somebody has to sign in there; what they ask for does not."""
    with TestClient(create_app(Settings(database_url=str(path), auth="tokens"), check_tokens=True)) as client:
        assert client.get("/desk").status_code == client.get("/desk/desk.js").status_code == 200
        assert client.get("/courses").status_code == 401


def test_under_a_mount(path: Path) -> None:
    """Under a host's mount each address in the page leads to the file there."""
    app = create_app(Settings(database_url=str(path)))
    with TestClient(app), TestClient(Starlette(routes=[Mount("/registry", app)])) as client:
        page = client.get("/registry/desk")
        for each in re.findall(r'(?:href|src)="([^"]+)"', page.text):
            assert client.get(str(page.url.join(each))).status_code == 200
