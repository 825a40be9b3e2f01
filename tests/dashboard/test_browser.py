"""The page in a real browser: its policy holds, it stays live, it fits a phone, and it can be used without a mouse."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _noon import noon
from _parts import needs_axe, needs_module, needs_program
from _servers import polled
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
def url(fault: FaultServer) -> Iterator[str]:
    """Serve the dashboard of an app that has been used, below a prefix."""
    app = Flask(__name__)
    providers = {name: {"kind": name, "base_url": fault.base_url, "api_key": "k"} for name in ("openai", "anthropic")}
    app.config["PERFKIT"] = {
        "providers": providers,
        "tokens": {"fallback_price": {"input": 1, "output": 2}, "timezone": noon()},
    }
    Perfkit(app, dashboard=lambda: True)
    for number in range(40):
        ask(number)
    with perfkit.profile("render"):
        pass
    perfkit.agent_pool.register("parser", list)
    perfkit.agent_pool.warm_up("parser", 1)
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


def ask(number: int) -> None:
    model = ("gpt-4o-mini", "claude-haiku-4-5")[number % 2]
    perfkit.chat(f"question {number % 30}", model=model, temperature=0, agent="<b>support</b>")


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


def test_all_panels_are_filled_and_charts_drawn(page: Page) -> None:
    page.wait_for_selector("svg.chart.drawn >> nth=2", state="attached")
    assert page.locator(".uplot").count() == 3
    empty = page.locator("p.empty").all_inner_texts()
    assert [text for text in empty if not text.startswith("Quiet:")] == ["No budget is set."]
    assert page.locator("td", has_text="<b>support</b>").count() == 2
    assert page.locator("th", has_text="Provider / model").is_visible()


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


def test_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 700})
    polled(lambda: page.evaluate("document.documentElement.scrollWidth") == 380)  # once the charts are drawn anew


def test_page_works_without_javascript(browser: Browser, url: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(url)
        assert page.locator("svg.chart").count() == 3
        assert page.locator("svg.chart >> nth=0").is_visible()
        page.locator("nav a", has_text="24h").click()
        assert page.locator("nav a[aria-current]").inner_text() == "24h"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.evaluate(needs_axe().read_text())
    found = page.evaluate("axe.run()")["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 380)])
def test_pictures_are_light_or_dark_and_as_wide_as_the_window(
    page: Page, scheme: Any, width: int, tmp_path: Path
) -> None:
    """PERFKIT_PICTURES names a directory to keep them in."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    page.reload()
    page.wait_for_selector("svg.chart.drawn >> nth=2", state="attached")
    path = Path(os.environ.get("PERFKIT_PICTURES", tmp_path)) / f"dashboard-{scheme}-{width}.png"
    found = struct.unpack(">II", page.screenshot(path=path, full_page=True)[16:24])
    assert found[0] == width
    assert found[1] > 1000
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", shade)[:3])) > 200) is (scheme == "light")
