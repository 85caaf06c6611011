"""Write a picture of each view of the desk, by day, by night and on a phone, for the pages that show the desk."""

import random
import tempfile
from base64 import b64decode
from pathlib import Path

import httpx2
from browser import SIGHTS, browsing, tab
from conftest import ROOT, serving
from playwright.sync_api import FilePayload, Page, expect
from school_files import messy

FOLDER = ROOT / "service" / "docs" / "pictures"
QUALITY = 60
"""Of WebP: with it a picture has some 30 KB, and its texts are sharp."""
GIVEN = ("Ada", "Grace", "Alan", "Katherine", "Emmy", "Sofia", "Niels", "Marie", "Évariste", "Łucja", "Chidi", "Aiko")
FAMILY = (
    "Lovelace",
    "Hopper",
    "Turing",
    "Johnson",
    "Noether",
    "Bohr",
    "Curie",
    "Galois",
    "Okonkwo",
    "Tanaka",
    "Wójcik",
)
COURSES = {
    "Algebra, section A": ("beginner", 24, 5),
    "Algebra, section B": ("beginner", 24, 5),
    "Analysis": ("advanced", 60, 0),
    "Arabic": ("beginner", 12, 10),
    "Chess": ("beginner", 12, 3),
    "Choir": ("beginner", None, 0),
    "Genetics": ("advanced", 24, 5),
    "Graph theory": ("master", 20, 5),
    "Latin": ("beginner", 20, 5),
    "Logic": ("beginner", 30, 10),
    "Physics": ("advanced", 60, 10),
    "Topology": ("master", 16, 4),
}
VIEWS = {
    "courses": "courses",
    "course": "courses/5",
    "students": "students",
    "student": "students/7",
    "terms": "terms",
    "activity": "activity",
    "import": "import",
    "keys": "keys",
}


def fill(client: httpx2.Client) -> str:
    """Fill a school by the API, as an office does. Gives the token of the office."""

    def post(path: str, **value: object) -> dict[str, object]:
        added: dict[str, object] = client.post(path, json=value).raise_for_status().json()
        return added

    chance = random.Random(7)
    term = post("/terms", name="Autumn 2026", external_id="2026A", starts_on="2026-09-01", ends_on="2026-12-18")["id"]
    for number, (name, (level, capacity, places)) in enumerate(COURSES.items(), 1):
        code = f"{name[:3].upper()}-{number}"
        sizes = {"capacity": capacity, "waitlist_capacity": places}
        post("/courses", name=name, level=level, external_id=code, term_id=term, **sizes)
    client.patch("/courses/8", json={"closes_at": "2026-09-12T16:00:00Z"}).raise_for_status()
    for number in range(20001, 20091):
        names = {"given_name": chance.choice(GIVEN), "family_name": chance.choice(FAMILY)}
        post("/students", external_id=str(number), email=f"s{number}@example.org", **names)
    tokens = [
        post("/tokens", name=name, scopes=scopes)
        for name, scopes in (("office", ["admin"]), ("front desk", ["enroll"]), ("student portal", ["read", "enroll"]))
    ]
    office = str(tokens[0]["token"])
    client.headers["authorization"] = f"Bearer {office}"
    wishes = [
        {"student_id": student, "course_id": course}
        for student in range(1, 91)
        for course in chance.sample(range(1, len(COURSES) + 1), 3)
    ]
    client.post("/enrollments", json=wishes).raise_for_status()
    client.post("/students/9/withdraw", json={"reason": "Moved away"}).raise_for_status()
    return office


def keep(page: Page, name: str) -> None:
    """Keep a picture of the window."""
    session = page.context.new_cdp_session(page)
    taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    (FOLDER / f"{name}.webp").write_bytes(b64decode(taken["data"]))


def main() -> None:
    """Serve a school, and go through all the views."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--migrate", "--database-url", str(Path(folder, "school.db")))
        with serving(*options) as server, httpx2.Client(base_url=server.url) as client, browsing() as browser:
            token = fill(client)
            for width, scheme in SIGHTS:
                with tab(browser, width, scheme) as page:
                    page.goto(f"{server.url}/desk")
                    page.get_by_label("Token").fill(token)
                    page.keyboard.press("Enter")
                    for name, path in VIEWS.items():
                        page.goto(f"{server.url}/desk#/{path}")
                        expect(page.locator(f"nav [href='#/{path.partition('/')[0]}'][aria-current]")).to_be_visible()
                        if name == "import":
                            sheet: FilePayload = {"name": "new students.csv", "mimeType": "", "buffer": messy()}
                            page.locator("input[type=file]").set_input_files(sheet)
                        expect(page.locator("tbody tr").first).to_be_visible()
                        page.wait_for_timeout(1000)  # Until the names are there, and the bars have come to rest.
                        keep(page, f"{name}-{'phone' if width < 600 else scheme}")


if __name__ == "__main__":
    main()
