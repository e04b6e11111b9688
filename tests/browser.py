"""Debian's chromium, driven by selenium, for pages that are opened from disk."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
)


def available() -> bool:
    return BROWSER.is_file() and DRIVER.is_file()


@contextmanager
def opened(path: Path, *switches: str) -> Iterator[Any]:
    """Open a file in a browser of its own, with a new profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for switch in (*SWITCHES, *switches, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            driver.set_script_timeout(60)
            driver.get("about:blank")
            requested(driver)  # those of the browser's own first page
            driver.get(path.absolute().as_uri())
            yield driver
        finally:
            driver.quit()


def requested(driver: Any) -> list[str]:
    """Return the addresses that were requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def problems(driver: Any) -> list[str]:
    """Return the warnings and errors of the console since the last call."""
    return [
        entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")
    ]


def wait_for(driver: Any, script: str, seconds: float = 30) -> float:
    """Wait until a script returns something true; return how long that took [s]."""
    started = time.monotonic()
    while not driver.execute_script(script):
        if time.monotonic() - started > seconds:
            raise AssertionError(f"nothing after {seconds} s: {script}; console: {problems(driver)}")
        time.sleep(0.02)
    return time.monotonic() - started
