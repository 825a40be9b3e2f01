"""The page in a real browser: its policy holds, it stays live, it fits a phone, and it can be used without a mouse."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from _parts import needs_axe, needs_module, needs_program
from _servers import polled
from dashboard.filled import another_worker, ask, fill, tables
from flask import Flask
from werkzeug.serving import make_server

import perfkit
from perfkit.integrations.flask import Perfkit
from perfkit.testing import FaultServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
LOOKS: list[tuple[Literal["light", "dark"], int]] = [("light", 1280), ("dark", 1280), ("light", 380)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs_module("playwright")
    chromium = needs_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def url(fault: FaultServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve the dashboard of an app that has been used, below a prefix; with the parameter "shared" as one worker."""
    store = tmp_path / "store" if getattr(request, "param", "") == "shared" else None
    app = Flask(__name__)
    app.config["PERFKIT"] = tables(fault, store)
    Perfkit(app, dashboard=lambda: True)
    app.test_client().get("/perfkit/")  # whose look begins to keep words
    fill()
    server = make_server("127.0.0.1", 0, Prefixed(app.wsgi_app, "/shop"), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shop/perfkit/"
    server.shutdown()
    thread.join()
    server.server_close()


class Prefixed:
    """An application below a path, as a proxy or mount gives it."""

    def __init__(self, app: Any, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    def __call__(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith(self._prefix)
        inner = {"SCRIPT_NAME": self._prefix, "PATH_INFO": path.removeprefix(self._prefix)}
        return self._app({**environ, **inner}, start_response)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(url)
    yield page
    page.close()
    assert told == []  # no error, and nothing against the content security policy


@pytest.mark.parametrize("url", ["shared"], indirect=True)
def test_a_page_full_of_work_is_sound_in_light_and_dark_and_on_a_phone(page: Page, tmp_path: Path) -> None:
    with another_worker(tmp_path / "store"):
        page.reload()
        empty = page.locator("p.empty").all_inner_texts()
        assert [text for text in empty if not text.startswith(("Quiet:", "Nothing to judge lately:"))] == []
        assert page.locator("td", has_text="too_slow").count() == 1
        assert page.locator(".scroll td", has_text="<b>support</b>").count() == 2
        assert page.locator(".banner").inner_text().startswith("2 of 2 workers reporting")
        for scheme, width in looks(page):
            page.reload()
            page.wait_for_selector("svg.chart.drawn >> nth=2", state="attached")
            assert page.locator(".uplot").count() == 3
            is_sound(page, scheme, width)
            taken(page, width, Path(os.environ.get("PERFKIT_PICTURES", tmp_path)) / f"dashboard-{scheme}-{width}.png")


def test_flame_graphs_are_sound_in_light_and_dark_and_on_a_phone(page: Page) -> None:
    addresses = page.locator("a[href^='profiles/']").evaluate_all("links => links.map(link => link.href)")
    assert len(addresses) == 2  # of the slow run, and of the CPU profile
    for address in addresses:
        page.goto(address)
        for scheme, width in looks(page):
            assert page.locator("svg.flame").count() == 1
            is_sound(page, scheme, width)


def looks(page: Page) -> Iterator[tuple[str, int]]:
    """Show the page in light, in dark and as wide as a phone, one after the other."""
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 700})
        yield scheme, width


def is_sound(page: Page, scheme: str, width: int) -> None:
    """Hold a page to what axe calls serious, to the colours that are asked for, and to the width of the window."""
    page.evaluate(needs_axe().read_text())
    found = page.evaluate("axe.run()")["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert (scheme, width, serious) == (scheme, width, [])
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", shade)[:3])) > 200) is (scheme == "light")
    polled(lambda: page.evaluate("document.documentElement.scrollWidth") == width)  # once the charts are drawn anew


def taken(page: Page, width: int, path: Path) -> None:
    """Take a picture; PERFKIT_PICTURES names a directory to keep them in."""
    found = struct.unpack(">II", page.screenshot(path=path, full_page=True)[16:24])
    assert found[0] == width
    assert found[1] > 1000


@pytest.mark.parametrize(("place", "shown"), [(0, r"calls:?\s*[1-9]"), (1, r"\d m?s"), (2, r"\$0\.000\d")])
def test_charts_tell_values_with_their_units(page: Page, place: int, shown: str) -> None:
    area, legend = (page.locator(f".uplot >> nth={place} >> .u-{part}") for part in ("over", "legend"))
    page.locator("#pause").click()
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None

    def told(left_of_end: int) -> bool:
        page.mouse.move(box["x"] + box["width"] - left_of_end, box["y"] + box["height"] / 2)
        return re.search(shown, legend.inner_text()) is not None

    polled(lambda: any(map(told, range(1, 40, 3))))  # the calls may be in the last step or the one before it


def test_page_stays_live_until_it_is_paused(page: Page) -> None:
    page.locator("#every").fill("1")
    for number in range(40, 45):
        ask(number)
    page.wait_for_selector(".tile strong:text-is('45')")
    page.locator("#pause").click()
    assert page.locator("#pause").inner_text() == "Resume"
    assert page.get_by_role("status").inner_text() == "Paused."
    page.locator("#pause").click()
    ask(45)
    page.wait_for_selector(".tile strong:text-is('46')")
    page.route("**part=live", lambda route: route.fulfill(status=302, headers={"Location": "/login"}))
    page.wait_for_selector("#told:text-is('You are logged out; these figures are old.')")


def test_live_figures_keep_the_place_of_a_table_and_wait_for_the_keyboard_alone(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 700})
    table = page.locator(".scroll[aria-label=Provider]")
    table.click()
    table.evaluate("box => { box.scrollLeft = 40 }")
    page.locator("#every").evaluate("slider => { slider.value = 1; slider.dispatchEvent(new Event('input')) }")
    ask(40)
    page.wait_for_selector(".tile strong:text-is('41')")
    assert table.evaluate("box => box.scrollLeft") == 40  # and a click has held nothing up
    page.locator("#pause").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "twin"
    page.wait_for_selector("#told:text-matches('wait while')")
    page.locator("#pause").focus()
    page.wait_for_selector("#told:text-is('')", state="attached")


def test_hostile_names_run_nothing_in_the_browser(page: Page) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    perfkit.chat("hi", model="gpt-4o-mini", agent=hostile)
    page.reload()
    assert page.locator("td", has_text=hostile).count() == 1
    page.locator("#every").fill("1")
    perfkit.chat("hi", model="gpt-4o-mini", agent=f"{hostile} live")
    page.locator("td", has_text=f"{hostile} live").wait_for()  # put there by the page's own script
    assert page.locator("img").count() == 0


def test_ranges_are_chosen_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?range=10m")
    assert page.locator("nav a[aria-current]").inner_text() == "10m"


def test_page_works_without_javascript(browser: Browser, url: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(url)
        assert page.locator("svg.chart").count() == 3
        assert page.locator("svg.chart >> nth=0").is_visible()
        page.locator("nav a", has_text="24h").click()
        assert page.locator("nav a[aria-current]").inner_text() == "24h"
