"""The report in a real browser: hostile artifacts are shown and nothing of them is executed."""

import re

import pytest
from browser import CHROMIUM, dump, title
from report_artifacts import make_report

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


def test_the_browser_would_execute_it(tmp_path):
    page = tmp_path / "bare.html"
    page.write_text(f"<!doctype html><html><title>safe</title><body>{HOSTILE}</body></html>")
    assert title(dump(page, tmp_path / "profile")[0]) == "EXECUTED"


def test_a_report_of_hostile_artifacts_executes_nothing(tmp_path):
    made = make_report(tmp_path, text=HOSTILE)
    # Without the policy, which would stop a script that came through.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", made)
    assert bare != made
    (tmp_path / "bare.html").write_text(bare, encoding="utf-8")
    opened = "tree=t1&row=balanced-0/0"
    document, console = dump(tmp_path / "bare.html", tmp_path / "profile", opened)
    assert not console
    assert title(document) == title(made) and "EXECUTED" not in title(document)
    # The texts are there to read, also those that the script put in.
    for place in ('id="tree-view"', 'id="balanced-0-list"'):
        shown = document[document.index(place) :][:60_000]
        assert "&lt;script&gt;document.title='EXECUTED'" in shown.partition("<script")[0], place
    # As the browser's parser sees it, no element came out of the texts.
    assert re.findall("<script[^>]*>", document) == re.findall("<script[^>]*>", made)
    for tag in ("img", "iframe", "object", "embed", "meta http-equiv"):
        assert f"<{tag}" not in document.replace('<img alt="" src="data:', ""), tag
    tags = re.findall(r"<[a-z][^<>]*>", document)
    assert not [tag for tag in tags if re.search(r"\son\w+=", re.sub(r'"[^"]*"', '""', tag))]
    assert not re.search(r"""<[^>]*\s(href|src|action)=["']?\s*javascript:""", document)
