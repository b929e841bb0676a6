"""Chromium by its own driver, for tests that look at a page as a reader does; such a test is skipped without them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

import pytest

from tests.helpers.apart import import_apart

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = ("--headless=new", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run")
REMEDY = "apt-get install chromium chromium-driver; make .venv/apart"


@contextmanager
def open_chromium(width: int = 1400, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """Give a driver of a new Chromium, `width` x `height` CSS pixels; skip the test if it is not installed."""
    webdriver = import_apart("selenium.webdriver")
    program, driver_program = next(filter(None, map(which, BROWSERS)), None), which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip(f"no Chromium with its driver; {REMEDY}")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in SWITCHES + (("--no-sandbox",) if os.geteuid() == 0 else ()):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    try:
        set_screen(driver, width, height)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield driver
    finally:
        driver.quit()


def set_screen(driver: Any, width: int, height: int) -> None:
    """Show the page on a screen of `width` x `height` CSS pixels; a phone's is narrower than any window."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def read_requests(driver: Any) -> list[str]:
    """Return the addresses that pages asked since the last call.

    `data:` URIs are no requests; nor is what the page's policy stopped, which the console names.
    """
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    failed = [message["params"] for message in messages if message["method"] == "Network.loadingFailed"]
    stopped = {parameters["requestId"] for parameters in failed if parameters.get("blockedReason") == "csp"}
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    addresses = [parameters["request"]["url"] for parameters in sent if parameters["requestId"] not in stopped]
    return [address for address in addresses if not address.startswith("data:")]


def read_console(driver: Any) -> list[str]:
    """Return what pages wrote to the console since the last call: errors, warnings, refused requests."""
    return [entry["message"] for entry in driver.get_log("browser")]
