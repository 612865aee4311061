"""A Chromium to look at pages with; where there is none, tests say how to get one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: what Debian and others call it
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextmanager
def browser() -> Generator[Any]:
    """A running browser of playwright's; skips where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("the page is looked at in Chromium, which is not here; on Debian: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        # its sandbox does not run as root
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=found, args=options)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def page_of(running: Any, url: str = "", **settings: Any) -> Iterator[Any]:
    """A page; no fault in it, and no error in its console, may have come up at its end."""
    faults: list[str] = []
    context = running.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    try:
        if url:
            page.goto(url)
        yield page
        assert not faults, faults
    except Exception as fault:
        fault.add_note(f"in the console: {faults}")
        raise
    finally:
        context.close()


def serious(page: Any) -> list[str]:
    """What axe-core calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {[node['html'][:120] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
