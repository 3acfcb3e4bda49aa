"""`labs ui` in a real browser, from the roadmap to a PASS, on the fixture lab `hits`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

if TYPE_CHECKING:
    from conftest import Kit

VERDICT_WITHIN_MS = 60_000
DRAWN_WITHIN_MS = 5_000
FITS = "document.documentElement.scrollWidth <= innerWidth"  # soon: charts hear of a new width with the next frame


@pytest.fixture
def address(kit: "Kit") -> str:
    """Where the pages are served."""
    process = kit.start("ui")
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found
    return found[0]


class Visitor:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.complaints.append(request.url) if not request.url.startswith((address, "data:")) else None)

    def run(self, button: str, verdict: str) -> None:
        """Run a submission and wait for its verdict."""
        self.page.get_by_role("button", name=button).click()
        expect(self.page.locator("#verdict")).to_have_text(verdict, timeout=VERDICT_WITHIN_MS)


@pytest.fixture
def visitor(browser: Browser, address: str) -> Visitor:
    """Somebody who opens the roadmap."""
    one = Visitor(browser, address)
    one.page.goto(address)
    return one


def photograph(page: Page, shots: Path, name: str) -> None:
    """The page as it is, narrow and wide, light and dark; it never scrolls sideways."""
    for width in (420, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.wait_for_function(FITS, timeout=DRAWN_WITHIN_MS)
            page.screenshot(path=str(shots / f"ui-{name}-{width}-{scheme}.png"), full_page=True)
    page.emulate_media(color_scheme="light")


def test_from_the_roadmap_to_a_pass(visitor: Visitor, kit: "Kit", shots: Path, colours_of: Callable[[Locator], int]) -> None:
    page = visitor.page
    expect(page.locator(".topic")).to_have_count(16)
    expect(page.locator("#microservices .state.new")).to_have_count(2)
    page.get_by_role("link", name="Hits").first.click()
    expect(page.locator("h1")).to_have_text(re.compile("Hits.*new"))

    page.get_by_role("button", name="Show hint 1 of 3").click()
    expect(page.locator("#hints")).to_contain_text("Count.")
    assert '"hints": 1' in (kit.root / ".labs" / "progress.json").read_text()

    visitor.run("Run the starter", "FAIL")
    expect(page.locator(".check").first).to_contain_text("Every hit is counted.")
    expect(page.locator(".check").first).to_contain_text("10 of 20 hits counted")
    expect(page.locator("#lines")).to_contain_text("the visitors come")
    expect(page.locator("#charts canvas")).to_have_count(2)
    assert colours_of(page.locator("#charts canvas").first) > 20
    expect(page.locator("#runs")).to_contain_text("starter")
    expect(page.get_by_role("button", name="Run the solution")).to_have_count(0)
    photograph(page, shots, "fail")

    (kit.root / "my" / "hits").mkdir(parents=True)
    (kit.root / "my" / "hits" / "app.py").write_text((kit.lab("hits") / "solution" / "app.py").read_text())
    visitor.run("Run mine", "PASS")
    expect(page.locator("h1")).to_have_text(re.compile("Hits.*passed"))
    visitor.run("Run the solution", "PASS")
    page.locator("#after summary").first.click()
    expect(page.locator("#after")).to_contain_text("A lock makes reading and writing one step.")
    photograph(page, shots, "pass")

    with page.expect_popup() as opened:
        page.get_by_role("link", name="The whole report").click()
    expect(opened.value).to_have_title("PASS hits solution")
    expect(opened.value.locator("canvas")).to_have_count(2)
    opened.value.close()
    page.goto(visitor.address)
    expect(page.locator("#microservices .state.passed")).to_have_count(1)
    photograph(page, shots, "map")
    assert visitor.complaints == []
    page.close()


def test_a_run_that_is_watched_live_can_be_stopped(visitor: Visitor, kit: "Kit", eventually: Callable[..., object]) -> None:
    kit.edit(
        "microservices/hits/test_lab.py",
        '        lab.mark("the visitors come")',
        '        lab.mark("the visitors come")\n        lab.until(lambda: False, 60)',
    )
    page = visitor.page
    page.goto(visitor.address + "labs/hits")
    page.get_by_role("button", name="Run the starter").click()
    expect(page.locator("#lines")).to_contain_text("the visitors come", timeout=VERDICT_WITHIN_MS)
    expect(page.locator("#charts canvas")).to_have_count(2, timeout=VERDICT_WITHIN_MS)
    expect(page.get_by_role("button", name="Run the starter")).to_be_disabled()
    page.reload()
    expect(page.locator("#lines")).to_contain_text("the visitors come")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#verdict")).to_have_text("STOPPED", timeout=VERDICT_WITHIN_MS)
    expect(page.get_by_role("button", name="Run the starter")).to_be_enabled()
    assert visitor.complaints == []
    page.close()
