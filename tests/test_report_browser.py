"""The report in a browser: what a reader does with it, by mouse and by keyboard, without a network."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest
from feature_folder import make_folder

from triptych.pipeline.report.html import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.available(), reason="chromium and chromedriver are not installed"),
]
DRAWN = "return document.querySelector('.detail .drawing [data-root-id], .detail .drawing div')"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    make_folder(folder / "F", {"train": 130, "valid": 8, "test": 6}, missing={"vision": [4], "text": [5]})
    write_report(folder / "F", folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def demo_report(tmp_path_factory, demo_features) -> Path:
    path = tmp_path_factory.mktemp("browser") / "demo.html"
    write_report(demo_features, path)
    return path


@pytest.fixture
def page(report):
    pytest.importorskip("selenium")
    with browser.opened(report) as driver:
        yield driver


def column(driver, number: int) -> list[str]:
    rows = "[...document.querySelectorAll('#clip-table tbody tr')]"
    return driver.execute_script(f"return {rows}.map((row) => row.cells[arguments[0]].textContent)", number)


def shown(driver) -> str:
    return driver.find_element("id", "shown").text


def test_table_sorts_by_a_column_in_both_directions(page):
    assert shown(page) == "144 of 144 clips, page 1 of 2"
    assert column(page, 0)[0] == "v_0000$_$0001"
    head = page.find_element("css selector", "th[data-key=audio] button")
    head.click()
    rows = [int(text) for text in column(page, 4)]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > rows[-1]
    assert page.find_element("css selector", "th[data-key=audio]").get_attribute("aria-sort") == "descending"
    head.click()
    assert int(column(page, 4)[0]) == min(int(text) for text in column(page, 4))
    page.find_element("css selector", "th[data-key=vision] button").click()
    page.find_element("id", "next").click()
    assert column(page, 5)[-1] == "–"  # what is unknown comes last
    assert browser.problems(page) == []


def test_search_and_filter_reduce_the_table(page):
    page.find_element("id", "search").send_keys("第13句")
    assert column(page, 0) == ["v_0013$_$0001"]
    assert shown(page) == "1 of 144 clips"
    page.find_element("id", "search").clear()
    page.find_element("id", "search").send_keys("TEST")
    assert len(column(page, 0)) == 6
    page.find_element("id", "search").clear()
    page.find_element("css selector", "#filter option[value=i]").click()
    assert column(page, 0) == ["v_0004$_$0001", "v_0005$_$0001"]


def test_clip_opens_with_curves_and_nothing_is_requested(page):
    page.find_element("css selector", "#clip-table .open").click()
    browser.wait_for(page, DRAWN)
    label = page.find_element("css selector", ".detail .drawing").get_attribute("aria-label")
    for curve in ("f0 over chroma", "action units", "gaze", "tokens"):
        assert curve in label
    painted = (
        "const canvases = []; const walk = (node) => { for (const child of node.children) { walk(child); "
        "if (child.shadowRoot) walk(child.shadowRoot); if (child.tagName === 'CANVAS') canvases.push(child); } };"
        "walk(document.querySelector('.detail .drawing'));"
        "return canvases.filter((canvas) => canvas.width && new Set(new Uint32Array("
        "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 20).length"
    )
    browser.wait_for(page, f"return (() => {{ {painted} }})() >= 4")
    assert browser.problems(page) == []
    addresses = browser.requested(page)
    assert addresses
    assert [one for one in addresses if not one.startswith(("file:", "data:", "blob:"))] == []
    page.find_element("css selector", "#clip-table .open").click()
    assert page.find_elements("css selector", ".detail") == []


def test_everything_works_by_keyboard(page):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    def focused(script: str) -> str:
        return page.execute_script(f"return document.activeElement.{script}")

    press(Keys.TAB)
    assert focused("className") == "skip"
    seen = []
    for _ in range(150):
        press(Keys.TAB)
        seen.append(focused("id") or focused("className"))
        if seen[-1] == "search":
            break
    assert seen[-1] == "search"
    assert "open" in seen  # the outliers can be opened too
    press("0007")
    assert column(page, 0) == ["v_0007$_$0001"]
    for _ in range(40):
        press(Keys.TAB)
        if focused("className") == "sort":
            break
    press(Keys.ENTER)
    assert page.find_element("css selector", "th[data-key=id]").get_attribute("aria-sort") == "ascending"
    for _ in range(20):
        press(Keys.TAB)
        if focused("className") == "open":
            break
    press(Keys.ENTER)
    browser.wait_for(page, "return document.querySelector('.detail input[type=range]')")
    press(Keys.TAB)
    assert focused("type") == "range"
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "0.04 s" in page.find_element("css selector", ".detail output").text
    assert browser.problems(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessibility_checker_finds_nothing_serious(demo_report, theme):
    package = pytest.importorskip("axe_playwright_python")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text("utf-8")
    with browser.opened(demo_report) as driver:
        driver.execute_script(f"document.querySelector('.theme input[value={theme}]').click()")
        driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        driver.find_element("css selector", "#clip-table .open").click()
        browser.wait_for(driver, DRAWN)
        driver.execute_script(axe)  # through the driver, so the page's policy does not apply to it
        found = driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then((found) => done(found));"
        )
        assert len(found["passes"]) > 20
        grave = [
            (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == []
        shades = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(shades.split("(")[1].split(",")[0]) < 128) == (theme == "dark")


def test_clip_shows_its_frames(demo_report):
    with browser.opened(demo_report) as driver:
        driver.find_element("css selector", "#clip-table .open").click()
        browser.wait_for(driver, "return document.querySelector('.strip')?.naturalWidth > 500")
        assert browser.problems(driver) == []
