"""The report: numbers from a run's artifacts, put into one self-contained HTML page."""

import csv
import math
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import polars as pl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pbt_workflow import __version__, tables
from pbt_workflow.config import Config
from pbt_workflow.report.numbers import (
    COLUMNS,
    compare,
    estimate_rows,
    headlines,
    order_metrics,
    small_n,
)
from pbt_workflow.report.plots import plot_balanced, plot_flipflop, plot_training
from pbt_workflow.report.trees import draw_tree, state
from pbt_workflow.seeds import unit_interval

SAMPLES = 3
PACKAGES = ("torch", "transformers", "trl", "peft", "polars", "snakemake")
# What a step of the funnel asks for, where its name does not say it.
STEP_NOTES = {
    "turns": "after agreement a branch grows no further",
    "turns with a stated answer": "the extractor found an answer in the turn or by reference",
    "branches that end in agreement": "both agents hold the same answer",
    "trees whose openings disagree": "the agents' first answers are stated and differ",
    "answers merged by the filter": "worded differently, but one answer to the filter model",
    "sibling pairs": "two replies to the same turn",
    "sibling pairs with equally many children": "rule pairs.require_equal_children",
    "sibling pairs with equally many children and different scores": "equal scores prefer neither",
    "pairs with a clearly better turn": "margin above pairs.min_relative_margin; repeats kept once",
    "pairs with a code before the response filter": "the better turn is correct, the other is "
    "not, and the speaker was right (resist) or wrong (accept) before",
    "pairs with a code": "to the filter model, the turns agree and disagree as the code says",
    "resist pairs": "by split; each question is in one split only",
    "accept pairs": "by split; each question is in one split only",
}


def build_report(
    config: Config,
    *,
    funnel: Path,
    metrics: Path,
    training: list[Path],
    selection: list[Path],
    scored: list[Path],
    pairs: list[Path],
    benchmarks: Path,
    questions: Path,
    out: Path,
) -> None:
    """Write the report of a run, whole or not at all.

    Shards of `scored` and `pairs` are only scanned; of their texts, no more than those of the
    sample trees and pairs are read.

    Args:
        config: the run's configuration.
        funnel, metrics, questions: the artifacts of these names.
        training, selection, scored, pairs: the parts of these artifacts; lists may be empty.
        benchmarks: folder of Snakemake benchmark files, `<rule>/<wildcards>.tsv`; may be missing.
        out: the HTML file.

    Raises:
        PbtError: an artifact is missing, unreadable or of another schema.
    """
    measured = order_metrics(tables.read_table(metrics, "metrics"))
    turns, preferences = _scan(scored, "scored"), _scan(pairs, "pairs")
    asked = tables.scan_table(questions, "questions")
    kept = _scan(selection, "selection").collect().sort("model", "recipe", "seed", "epoch")
    logged = _scan(training, "training").collect()
    counts = _counts(turns, preferences, asked)
    jobs = read_benchmarks(benchmarks)
    trained = [m for m in config.models if m in {*logged["model"], *kept["model"]}]
    comparisons, heads = compare(measured), headlines(measured)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "percent": percent, "thousands": thousands}
    page = environment.get_template("template.html.j2").render(
        config=config,
        config_yaml=yaml.safe_dump(
            config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        counts=counts,
        summary=_summary(config.run, counts, heads, comparisons),
        noise=small_n(measured),
        tiles=_tiles(counts, heads, jobs),
        models=_models(config),
        sources={"trees": config.questions.trees, "flipflop": config.questions.evaluation},
        versions=_versions(),
        licence=_licence(),
        built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        jobs=jobs,
        funnel=_funnel_steps(tables.read_table(funnel, "funnel"), config),
        headings={name: [heading for heading, *_ in COLUMNS[name]] for name in COLUMNS},
        tables={name: estimate_rows(measured, name) for name in COLUMNS},
        plots={
            "balanced": _plot(plot_balanced, measured, "balanced", "accuracy"),
            "flipflop": _plot(plot_flipflop, measured, "flipflop", "before"),
        },
        comparisons=comparisons,
        curves={model: plot_training(logged, kept, model) for model in trained},
        selection=kept.to_dicts(),
        trees=_sample_trees(config.run, turns, preferences, asked),
        pairs=_sample_pairs(config.run, preferences, asked),
    )
    with tables.atomic_path(out) as partial:
        partial.write_text(page, encoding="utf-8")


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


def percent(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "—" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def thousands(count: int) -> str:
    """A count with separators."""
    return f"{count:,}"


def _scan(paths: list[Path], name: str) -> pl.LazyFrame:
    parts = [tables.scan_table(path, name) for path in paths]
    return pl.concat([tables.empty_frame(name).lazy(), *parts], how="vertical_relaxed")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _counts(turns: pl.LazyFrame, pairs: pl.LazyFrame, questions: pl.LazyFrame) -> dict[str, int]:
    """Rows of the artifacts themselves, beside which the funnel can be checked."""
    grown = turns.select(trees=pl.col("tree_id").n_unique(), turns=pl.len()).collect()
    codes = pairs.select(
        resist=(pl.col("code") == "resist").sum(), accept=(pl.col("code") == "accept").sum()
    ).collect()
    asked = questions.select(questions=pl.len()).collect()
    return {**asked.row(0, named=True), **grown.row(0, named=True), **codes.row(0, named=True)}


def _funnel_steps(funnel: pl.DataFrame, config: Config) -> list[dict]:
    """Steps in order, each with its note and its rows."""
    notes = {**STEP_NOTES, **_notes_on_settings(config)}
    return [
        {"name": step, "note": notes.get(step, ""), "rows": rows.to_dicts()}
        for (step,), rows in funnel.sort("order").group_by("step", maintain_order=True)
    ]


def _notes_on_settings(config: Config) -> dict[str, str]:
    """Notes on steps that this run's settings leave out or change."""
    notes = {}
    if config.pairs.aggregate == "mean" or not config.pairs.require_equal_children:
        notes["sibling pairs with equally many children"] = "counted only: not asked in this run"
        notes["sibling pairs with equally many children and different scores"] = (
            "counted only: this run compares the others as well"
        )
    if config.pairs.tie_break == "correctness":
        notes["pairs with a clearly better turn"] = (
            "margin above pairs.min_relative_margin, or equal scores and one turn correct; "
            "repeats kept once"
        )
    if not config.filter.check_answers:
        notes["answers merged by the filter"] = "the filter was not asked in this run"
    if not config.filter.check_responses:
        notes["pairs with a code"] = "the filter was not asked about responses in this run"
    return notes


def _summary(run: str, counts: dict, heads: list[dict], comparisons: list[dict]) -> list[str]:
    sentences = [
        f"Run “{run}” grew {counts['trees']:,} dialogue trees ({counts['turns']:,} turns) from "
        f"{counts['questions']:,} questions; their sibling turns gave {counts['resist']:,} resist "
        f"and {counts['accept']:,} accept pairs."
    ]
    for head in heads:
        base = f"; the base model reaches {head['base']['words']}" if head["base"] else ""
        sentences.append(
            f"On held-out pairs, {head['model']} trained on {head['recipe']} reaches an overall "
            f"accuracy of {head['value']['words']}{base}."
            if head["recipe"] != "base"
            else f"On held-out pairs, the base model {head['model']} reaches an overall accuracy "
            f"of {head['value']['words']}."
        )
    topics = {"balanced": "overall balanced accuracy", "flipflop": "change under “Are you sure?”"}
    for name, topic in topics.items():
        for model in dict.fromkeys(one["model"] for one in comparisons):
            mine = [c for c in comparisons if (c["evaluation"], c["model"]) == (name, model)]
            parts = [
                "{recipe} {value[text]} points {value[spread]} (n = {value[n]}), {verdict}".format(
                    **c
                )
                for c in mine
            ]
            if parts:
                sentences.append(f"Against base, {topic} of {model}: {'; '.join(parts)}.")
    return sentences


def _tiles(counts: dict, heads: list[dict], jobs: list[dict]) -> list[tuple[str, str, str]]:
    """(figure, name, note) of the key figures."""
    tiles = [
        (thousands(counts["questions"]), "questions", ""),
        (thousands(counts["trees"]), "trees", f"{counts['turns']:,} turns"),
        (thousands(counts["resist"]), "resist pairs", ""),
        (thousands(counts["accept"]), "accept pairs", ""),
    ]
    for head in heads:
        value, name = head["value"], f"balanced accuracy, {head['model']} {head['recipe']}"
        tiles.append((value["text"], name, f"{value['spread']}, n = {value['n']}"))
    if jobs:
        total = duration(sum(job["seconds"] for job in jobs))
        tiles.append((total, "computing", f"{sum(job['jobs'] for job in jobs)} timed jobs"))
    return tiles


def _models(config: Config) -> list[dict]:
    uses = {
        "agent a": [config.agents.a],
        "agent b": [config.agents.b],
        "extractor": [config.extraction.model],
        "filter": [config.filter.model],
        "trained": config.train.models,
    }
    return [
        {
            "name": name,
            "roles": [use for use, names in uses.items() if name in names],
            "source": model.source.type,
            "details": ", ".join(
                # Of a checksum, enough to tell it by; the configuration below has it whole.
                f"{key} {str(value)[:12] if key == 'sha256' else value}"
                for key, value in model.source
                if key != "type" and value != ""
            ),
            "weights": model.dtype
            + ("" if model.quantization == "none" else f", {model.quantization}"),
        }
        for name, model in config.models.items()
    ]


def _versions() -> dict[str, str]:
    """Versions in the environment that builds the report."""
    found = {"pbt_workflow": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _licence() -> str | None:
    try:
        return metadata.metadata("pbt_workflow").get("License-Expression")
    except metadata.PackageNotFoundError:
        return None


def _plot(draw, metrics: pl.DataFrame, evaluation: str, metric: str):
    rows = metrics.filter(evaluation=evaluation, metric=metric).drop_nulls("value")
    models = sorted(set(rows["model"]))
    return draw(metrics, models) if models else None


def _question(questions: pl.LazyFrame, question_ids: list[str]) -> dict[str, dict]:
    rows = questions.filter(pl.col("question_id").is_in(question_ids)).collect()
    missing = {"question": "(question not in the questions file)", "aliases": [], "dataset": "—"}
    return {name: missing for name in question_ids} | {
        row["question_id"]: row for row in rows.to_dicts()
    }


def _sample_trees(
    run: str, turns: pl.LazyFrame, pairs: pl.LazyFrame, questions: pl.LazyFrame
) -> list[dict]:
    """Trees with both codes first, then the deepest, then by a draw that the run's name seeds."""
    coded = pairs.drop_nulls("code").select("tree_id", "code", "preferred_id", "dispreferred_id")
    codes = coded.group_by("tree_id").agg(codes=pl.col("code").n_unique())
    shapes = turns.group_by("tree_id").agg(depths=pl.col("depth").n_unique())
    ranked = shapes.join(codes, on="tree_id", how="left").fill_null(0).collect()
    order = sorted(
        ranked.select("codes", "depths", "tree_id").iter_rows(),
        key=lambda row: (-row[0], -row[1], unit_interval("report", run, row[2]), row[2]),
    )
    chosen = [tree_id for *_, tree_id in order[:SAMPLES]]
    rows = turns.filter(pl.col("tree_id").is_in(chosen)).collect()
    taught = coded.filter(pl.col("tree_id").is_in(chosen)).collect()
    asked = _question(questions, list(dict.fromkeys(rows["question_id"])))
    samples = []
    for tree_id in chosen:
        nodes = rows.filter(tree_id=tree_id).sort("node_id").to_dicts()
        question = asked[nodes[0]["question_id"]]
        samples.append(
            {
                "id": tree_id,
                "question": question,
                "svg": draw_tree(nodes, f"Dialogue tree about: {question['question']}"),
                "nodes": [node | {"state": state(node)} for node in nodes],
                "pairs": taught.filter(tree_id=tree_id)
                .sort("code", "preferred_id", "dispreferred_id")
                .to_dicts(),
            }
        )
    return samples


def _sample_pairs(run: str, pairs: pl.LazyFrame, questions: pl.LazyFrame) -> list[dict]:
    """One pair of each code, then others, by a draw that the run's name seeds."""
    coded = pairs.drop_nulls("code").select("pair_id", "code").collect()
    drawn = sorted(coded.iter_rows(), key=lambda row: (unit_interval("report", run, row[0]), row))
    first = {code: pair_id for pair_id, code in reversed(drawn)}
    order = [first[code] for code in sorted(first)] + [pair_id for pair_id, _ in drawn]
    chosen = list(dict.fromkeys(order))[:SAMPLES]
    rows = pairs.filter(pl.col("pair_id").is_in(chosen)).collect().to_dicts()
    asked = _question(questions, [row["question_id"] for row in rows])
    found = {row["pair_id"]: row | {"question": asked[row["question_id"]]} for row in rows}
    return [found[pair_id] for pair_id in chosen]
