"""Chromium, where there is one: a page as it is after its script has run."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)


def dump(page: Path, profile: Path, place: str = "") -> tuple[str, list[str]]:
    """The document as Chromium has it after loading and running what it would run.

    Args:
        page: an HTML file.
        profile: a folder for Chromium.
        place: what stands after # in the address.

    Returns:
        The document, and what was written to the console.
    """
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom"]
    address = page.as_uri() + (f"#{place}" if place else "")
    done = subprocess.run(
        [*command, address], capture_output=True, text=True, timeout=120, check=False
    )
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def title(document: str) -> str:
    return re.search(r"<title>(.*?)</title>", document, flags=re.S)[1]
