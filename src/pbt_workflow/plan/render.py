"""A plan as text and as a file."""

import json
from pathlib import Path

import polars as pl

from pbt_workflow.config import Config
from pbt_workflow.errors import PbtError
from pbt_workflow.plan.evaluations import Sizes
from pbt_workflow.plan.hardware import Machine, Shape
from pbt_workflow.tables import atomic_path

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
HEADERS = {
    "stage": "stage",
    "jobs": "jobs",
    "sequences": "sequences",
    "prompt_tokens": "prompt tokens",
    "distinct_prompt_tokens": "distinct",
    "new_tokens": "new tokens",
    "disk_bytes": "disk",
    "gpu_hours": "GPU-hours",
    "wall_hours": "hours",
}


def number(value: float) -> str:
    """Three digits and a unit: 1.61M."""
    for size, unit in UNITS:
        if value >= 0.9995 * size:
            return (
                f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
            )
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _cell(column: str, value: object) -> str:
    if column == "stage":
        return str(value)
    if not value:
        return "-"
    if column == "jobs":
        return f"{value:,}"
    if column in ("gpu_hours", "wall_hours"):
        return f"{value:,.1f}" if value >= 0.95 else f"{value:.2f}"
    return number(value) + ("B" if column == "disk_bytes" else "")


def render(stages: pl.DataFrame) -> str:
    """The table of stages with their sum, as Markdown with aligned columns."""
    rows = [dict(row) for row in stages.iter_rows(named=True)]
    rows.append({"stage": "sum"} | {c: stages[c].sum() for c in HEADERS if c != "stage"})
    lines = [list(HEADERS.values())]
    lines += [[_cell(column, row[column]) for column in HEADERS] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADERS))]
    rule = ["-" * width if not i else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )


def notes(
    config: Config, sizes: Sizes, shapes: dict[str, Shape], machine: Machine, gpu: str
) -> str:
    """What the table was made for, and models that do not fit."""
    trees = f"{sizes.trees:,.0f} questions for trees, " if config.grows_trees else ""
    models = ", ".join(f"{name} {number(s.parameters)}" for name, s in shapes.items())
    plural = "s" if machine.gpus > 1 else ""
    own = {m.engine: None for name, m in config.models.items() if name in shapes}
    engine = machine.engine or " and ".join(own)
    lines = [
        "",
        f"{trees}{machine.gpus} {gpu.upper()} GPU{plural}, engine {engine}.",
        f"Parameters: {models}.",
        "distinct: prompt tokens after prefixes are shared. hours: with all GPUs in use, stage "
        "after stage.",
    ]
    for name, shape in shapes.items():
        if not machine.fits(config, name, shape):
            weights = number(shape.parameters * shape.loaded_bytes)
            lines.append(
                f"Beware: the weights of {name} ({weights}B) do not fit on the "
                f"{machine.needs(config, name)} GPU(s) of a job."
            )
    return "\n".join(lines)


def write_plan(plan: pl.DataFrame, path: Path) -> None:
    """Write every part of a plan as JSON (a list of rows) or Parquet, by the file's name.

    Raises:
        PbtError: the name ends in neither .json nor .parquet.
    """
    if path.suffix not in (".json", ".parquet"):
        raise PbtError("a plan is a .json or a .parquet file", where=path, hint="rename it")
    with atomic_path(path) as partial:
        if path.suffix == ".json":
            partial.write_text(json.dumps(plan.to_dicts(), indent=2) + "\n", encoding="utf-8")
        else:
            plan.write_parquet(partial)
