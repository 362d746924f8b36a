"""docs/guarantees.md: every promise names a test that is there."""

import re

from checkouts import ROOT

FAULTS = ROOT / "tests" / "faults" / "kill_and_rerun.py"


def test_every_promise_names_a_test_that_is_there():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if not row.startswith("| Promise")]
    assert len(promises) > 30
    file = None
    for row in promises:
        named = re.findall(r"`(?:([\w./]+|…)::)?(test_\w+)`", row.rsplit("|", 2)[1])
        assert named, f"no test is named: {row}"
        for place, name in named:
            if place in ("", "faults"):
                where = FAULTS
            else:
                # `…` is the file that was named last.
                where = file = file if place == "…" else ROOT / "tests" / place
            assert f"def {name}(" in where.read_text(encoding="utf-8"), f"{where.name}::{name}"
