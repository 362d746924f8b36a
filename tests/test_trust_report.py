"""The report in a real browser: hostile artifacts are shown and nothing of them is executed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_artifacts import make_report

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ATTACK = "document.title='EXECUTED'"
HOSTILE = "\n".join(
    [
        f"<script>{ATTACK}</script>",
        f"</script><script>{ATTACK}</script>",
        f"</style></title></svg><script>{ATTACK}</script>",
        f'<img src=x onerror="{ATTACK}">',
        f'" onload="{ATTACK}" autofocus onfocus="{ATTACK}" x="',
        f"' onmouseover='{ATTACK}' style='animation:x' onanimationstart='{ATTACK}",
        f'<svg onload="{ATTACK}"><animate onbegin="{ATTACK}" attributeName=x></svg>',
        f'<a href="javascript:{ATTACK}" autofocus>link</a>',
        f'<iframe srcdoc="<script>parent.{ATTACK}</script>"></iframe>',
        f"<details open ontoggle={ATTACK}>",
        f"<meta http-equiv=refresh content='0;url=data:text/html,<script>{ATTACK}</script>'>",
        f"--><script>{ATTACK}</script><!-- ]]><script>{ATTACK}</script>",
        "{{ 7*7 }} {% raw %} ${7*7} &lt;script&gt;",
        "\u202eright to left\u202c \x07 \U0001f469\u200d\U0001f467",
    ]
)


def dump(page: Path, profile: Path) -> str:
    """The document as Chromium has it after loading and running what it would run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout


def title(document: str) -> str:
    return re.search(r"<title>(.*?)</title>", document, flags=re.S)[1]


def test_the_browser_would_execute_it(tmp_path):
    page = tmp_path / "bare.html"
    page.write_text(f"<!doctype html><html><title>safe</title><body>{HOSTILE}</body></html>")
    assert title(dump(page, tmp_path / "profile")) == "EXECUTED"


def test_a_report_of_hostile_artifacts_executes_nothing(tmp_path):
    made = make_report(tmp_path, text=HOSTILE)
    document = dump(tmp_path / "report.html", tmp_path / "profile")
    assert "EXECUTED" in document, "the texts are there to read"
    assert title(document) == title(made) and "EXECUTED" not in title(document)
    # As the browser's parser sees it, no element came out of the texts.
    for tag in ("script", "img", "iframe", "object", "embed", "meta http-equiv"):
        assert f"<{tag}" not in document.replace('<img alt="" src="data:', ""), tag
    tags = re.findall(r"<[a-z][^<>]*>", document)
    assert not [tag for tag in tags if re.search(r"\son\w+=", re.sub(r'"[^"]*"', '""', tag))]
    assert not re.search(r"""<[^>]*\s(href|src|action)=["']?\s*javascript:""", document)
