"""A page that opens from disk: one HTML file with its style, its script and its data."""

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pbt_workflow import tables
from pbt_workflow.config import Config
from pbt_workflow.report.costs import duration
from pbt_workflow.report.run import farm_origin, licence, versions

HERE = Path(__file__).parent
# The only script of a page; the policy below names it by its hash, so that no other one is run.
SCRIPTS = ("unpack.js", "explorer.js", "rows.js")


def write_page(config: Config, sections: Sequence[tuple[str, str, dict | None]], out: Path) -> None:
    """Write a page whole or not at all.

    Args:
        config: the run's configuration.
        sections: (id, title, what sections/<id>.html.j2 shows) in order; without the last, a
            section is left out.
        out: the HTML file.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "percent": share, "thousands": thousands}
    script = page_script()
    page = environment.get_template("template.html.j2").render(
        config=config,
        sections=[section for section in sections if section[2] is not None],
        versions=versions(),
        licence=licence(),
        farm=farm_origin(config.evaluations.misinformation.files),
        built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=Markup(script),
        policy=content_policy(script),
    )
    with tables.atomic_path(out) as partial:
        partial.write_text(page, encoding="utf-8")


def page_script() -> str:
    """The script that every page has, the same in all of them."""
    parts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return "\n" + "\n".join(['"use strict";', *parts])


def content_policy(script: str) -> str:
    """The Content-Security-Policy of a page: nothing is fetched, and no other script is run."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def share(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "—" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def thousands(count: int) -> str:
    """A count with separators."""
    return f"{count:,}"
