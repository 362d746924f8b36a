"""Two million turns through all that needs no model, and a report that a browser opens.

Slow and large, so not collected by itself: `make test-faults`.
"""

import shutil
import sys

import pytest
from browser import CHROMIUM, dump, title
from checkouts import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import load  # noqa: E402

# Reports are sent around.
LARGEST = 20e6  # bytes
PROCESSORS = 2


@pytest.fixture(scope="module", params=[1, 16], ids=["one shard", "sixteen shards"])
def spent(request, tmp_path_factory):
    """The folder with everything that was made, and what every stage spent."""
    folder = tmp_path_factory.mktemp("load")
    yield folder, load.measure(folder, f"{request.param} shards", load.TREES, request.param, 0.0)
    shutil.rmtree(folder)


def test_two_million_turns_take_little_time_and_memory(spent):
    _, stages = spent
    assert stages["total"].peak < load.MEMORY and stages["report"].peak < load.MEMORY
    # Other processes of the machine do not count.
    assert stages["total"].cpu / PROCESSORS < load.SECONDS


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_of_more_trees_than_the_paper_has_opens(spent, tmp_path):
    page = spent[0] / "report.html"
    assert page.stat().st_size < LARGEST and load.TREES > 76_495
    document, problems = dump(page, tmp_path / "profile")
    assert not problems
    assert title(document) == title(page.read_text(encoding="utf-8"))
    assert f"{load.TREES:,} dialogue trees" in document and document.rstrip().endswith("</html>")
