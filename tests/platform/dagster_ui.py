"""What a person does in Dagster's pages, with a headless browser, and what came of it."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
#: seconds until a page shows something; a server that has just begun loads its definitions first
PATIENCE_OF_PAGES = 60
#: seconds until a backfill has ended; several chains on a busy machine
PATIENCE = 300


@contextmanager
def browser_page(chromium):
    """A page of a browser that ends with the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE_OF_PAGES)
        yield page
        browser.close()


def materialize_all_partitions(page, address, asset):
    """Ask for every partition of an asset on its page."""
    page.goto(f"{address}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    for at in range(2):  # encoder and task
        dialog.get_by_role("button", name="All", exact=True).nth(at).click()
    launch(page, dialog)


def materialize_everything(page, address):
    """Ask for every partition of every asset on the page of the whole graph."""
    page.goto(f"{address}/asset-groups")
    page.get_by_role("button", name="Materialize all").first.click()
    launch(page, page.get_by_role("dialog"))


def launch(page, dialog):
    """Confirm, and see the dialog close without an error."""
    dialog.get_by_role("button", name="Launch backfill").click()
    dialog.wait_for(state="hidden")


def keep_picture(page, name):
    """Save a picture of the page where `FMAUDIT_SCREENSHOTS` names a folder."""
    folder = os.environ.get("FMAUDIT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder, f"{name}.png"))


@contextmanager
def backfilled():
    """What came of the backfill that is launched inside the block: its runs, and how it ended."""
    outcome = {}
    with dg.DagsterInstance.get() as instance:
        before = {one.backfill_id for one in instance.get_backfills()}

        def launched():
            return [one for one in instance.get_backfills() if one.backfill_id not in before]

        yield outcome
        wait_for(launched)
        (one,) = launched()
        wait_for(lambda: instance.get_backfill(one.backfill_id).status.value not in ("REQUESTED", "FAILING"))
        outcome["ended"] = instance.get_backfill(one.backfill_id).status.value
        outcome["runs"] = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": one.backfill_id}))


def wait_for(there):
    """Wait until `there()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(1)
