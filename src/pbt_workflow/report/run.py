"""The section on what was run: models, questions, versions, computing time."""

import csv
import math
import platform
from importlib import metadata
from pathlib import Path

import yaml

from pbt_workflow import __version__
from pbt_workflow.config import Adapter, Config, Model
from pbt_workflow.config.evaluations import FarmFiles

PACKAGES = ("torch", "transformers", "trl", "peft", "polars", "snakemake")
FARM = "llms-believe-the-earth-is-flat"


def run_section(config: Config, jobs: list[dict], missing: list[tuple[str, str]]) -> dict:
    """What the page says of the run itself.

    Args:
        config: the run's configuration.
        jobs: see `read_benchmarks`.
        missing: (name, reason) of evaluations that were not run.
    """
    return {
        "models": _models(config),
        "sources": _sources(config),
        "versions": versions(),
        "jobs": jobs,
        "missing": missing,
        "config_yaml": yaml.safe_dump(
            config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
    }


def read_benchmarks(folder: Path) -> list[dict]:
    """Jobs, seconds (wall clock, added up) and highest memory (MB or None) per rule.

    Files without a readable time are left out; a missing folder gives an empty list.
    """
    rules: dict[str, dict] = {}
    for path in sorted(Path(folder).rglob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        seconds = [value for row in rows if (value := _number(row.get("s"))) is not None]
        if not seconds:
            continue
        name = path.relative_to(folder).parts[0].removesuffix(".tsv")
        rule = rules.setdefault(name, {"rule": name, "jobs": 0, "seconds": 0.0, "memory": None})
        rule["jobs"] += 1
        rule["seconds"] += sum(seconds)
        memory = [m for row in rows if (m := _number(row.get("max_rss"))) is not None]
        rule["memory"] = max([*memory, rule["memory"] or 0.0]) or None
    return sorted(rules.values(), key=lambda rule: -rule["seconds"])


def duration(seconds: float) -> str:
    """Seconds in words: `4.2 s`, `3 min 20 s`, `25 min`, `5 h 07 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def versions() -> dict[str, str]:
    """Versions in the environment that builds the report."""
    found = {"pbt_workflow": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def licence() -> str | None:
    """This package's licence; None where it is not installed."""
    try:
        return metadata.metadata("pbt_workflow").get("License-Expression")
    except metadata.PackageNotFoundError:
        return None


def farm_origin(files: FarmFiles) -> str:
    """Which files the misinformation evaluation used, in words."""
    if files.world is not None:
        return f"a microworld’s own, “{files.dataset}”, in the shape of FARM’s"
    if files.url is None:
        return (
            f"local files, named “{files.dataset}” in the configuration ({files.path}); this run "
            "did not fetch FARM’s published ones"
        )
    published = "where" if FARM in files.url.lower() else "which is not where"
    return f"“{files.dataset}”, fetched from {files.url}, {published} FARM is published"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _models(config: Config) -> list[dict]:
    evaluations = config.evaluations_run
    uses = {
        "agent a": [config.agents.a] if config.agents else [],
        "agent b": [config.agents.b] if config.agents else [],
        "extractor": [config.extraction.model],
        "filter": [config.filter.model] if config.filter else [],
        "trained": config.train.models,
        "evaluated": config.evaluated,
        "partner": config.evaluations.team.partners if "team" in evaluations else [],
        "listener": [config.analysis.listener] if config.analysis else [],
    }
    models = [
        {
            "name": name,
            "roles": [use for use, names in uses.items() if name in names],
            "weights": model.dtype
            + ("" if model.quantization == "none" else f", {model.quantization}"),
            **_source(model),
        }
        for name, model in config.models.items()
    ]
    adapters = [
        {
            "name": name,
            "roles": [f"adapter of {adapter.model}, evaluated as it is"],
            "weights": "LoRA",
            **_source(adapter),
        }
        for name, adapter in config.adapters.items()
    ]
    return models + adapters


def _source(entry: Model | Adapter) -> dict[str, str]:
    return {
        "source": entry.source.type,
        "details": ", ".join(
            # Of a checksum, enough to tell it by; the configuration below has it whole.
            f"{key} {str(value)[:12] if key == 'sha256' else value}"
            for key, value in entry.source
            if key != "type" and value != ""
        ),
    }


def _sources(config: Config) -> list[dict]:
    """Where questions came from, in the words of the table's columns."""
    evaluations = config.evaluations
    rows = [
        {
            "use": use,
            "dataset": source.dataset,
            "place": source.path
            or ", ".join(source.trajectories or ())
            or f"{source.repo} @ {source.revision}, {source.repo_file}",
            "split": source.split or "all",
            "limit": f"{source.limit or 'none'}{f', {limit} of them' if limit else ''}",
            "seed": source.seed,
        }
        for use, source, limit in (
            ("trees", config.questions.trees, None),
            ("flipflop", config.questions.evaluation, evaluations.flipflop.limit),
            ("team", config.questions.evaluation, evaluations.team.limit),
        )
        if source is not None
        and (use in config.evaluations_run or use == "trees" and config.grows_trees)
    ]
    if "misinformation" in config.evaluations_run:
        farm = evaluations.misinformation
        rows.append(
            {
                "use": "misinformation",
                "dataset": farm.files.dataset,
                "place": farm.files.path or farm.files.url,
                "split": ", ".join(farm.subsets),
                "limit": f"{farm.limit} per subset" if farm.limit else "none",
                "seed": "—",
            }
        )
    return rows
