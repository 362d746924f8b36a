"""Metrics as the report prints them: each value with its interval and n, each difference in words.

Accuracies are shares in the tables, and percent (differences: points) on the page.
"""

import math
from statistics import mean, stdev

import polars as pl

# In the order the paper names them, base first.
RECIPES = ("base", "accept", "resist", "pbt")
MEAN_ROW = "mean ± sd"
# Column heading, subset, metric.
COLUMNS = {
    "balanced": (
        ("resist (+→−)", "resist", "accuracy"),
        ("accept (−→+)", "accept", "accuracy"),
        ("overall", "overall", "accuracy"),
        ("overall − base’s", "overall", "accuracy_minus_base"),
    ),
    "flipflop": (
        ("before", "all", "before"),
        ("after", "all", "after"),
        ("after − before", "all", "difference"),
        ("that − base’s", "all", "difference_minus_base"),
        ("any → flip", "all", "any_to_flip"),
        ("correct → flip", "all", "correct_to_flip"),
        ("wrong → flip", "all", "wrong_to_flip"),
    ),
}


def order_metrics(metrics: pl.DataFrame) -> pl.DataFrame:
    """Rows by evaluation, model, recipe in the paper's order, seed; NaN becomes null."""
    place = pl.col("recipe").replace_strict(
        RECIPES, range(len(RECIPES)), default=len(RECIPES), return_dtype=pl.Int32
    )
    return metrics.with_columns(pl.col("value", "ci_low", "ci_high").fill_nan(None)).sort(
        "evaluation", "model", place, "seed", maintain_order=True
    )


def estimate(rows: list[dict]) -> dict:
    """One quantity of one recipe as text.

    Args:
        rows: its `metrics` rows, one per seed.

    Returns:
        `text`: the value, or mean ± standard deviation where several seeds have one, or a dash;
        `spread`: the interval, or of how many seeds; `n`: per seed, as text; `words`: all in one.
    """
    counts = sorted({row["n"] for row in rows})
    n = "–".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))
    rows = [row for row in rows if row["value"] is not None]
    if not rows:
        return {"text": "—", "spread": "", "n": n, "words": f"no value, n = {n or 0}"}
    signed = "minus" in rows[0]["metric"] or rows[0]["metric"] == "difference"
    text = _percent(mean(row["value"] for row in rows), signed)
    low, high = rows[0]["ci_low"], rows[0]["ci_high"]
    if len(rows) > 1:
        text += f" ± {_percent(stdev(row['value'] for row in rows))}"
        kind, spread = "mean ± sd ", f"over {len(rows)} seeds"
    elif low is None or high is None:
        kind, spread = "", "no interval"
    else:
        kind, spread = "95% interval ", f"[{_percent(low)}, {_percent(high)}]"
    text += "" if signed else "%"
    words = f"{text}{' points' if signed else ''} ({kind}{spread}, n = {n})"
    return {"text": text, "spread": spread, "n": n, "words": words}


def estimate_rows(metrics: pl.DataFrame, evaluation: str) -> list[dict]:
    """Table rows of an evaluation: one per model, recipe and seed, then one over the seeds.

    Args:
        metrics: `order_metrics`'s rows.
        evaluation: a key of COLUMNS; its cells are in that order.

    Returns:
        Dicts of `model`, `recipe`, `seed` and `cells` (see `estimate`).
    """
    table = []
    groups = metrics.filter(evaluation=evaluation).group_by("model", "recipe", maintain_order=True)
    for (model, recipe), part in groups:
        rows = part.to_dicts()
        seeds = sorted({row["seed"] for row in rows})
        shown = [(seed, [row for row in rows if row["seed"] == seed]) for seed in seeds]
        if len(seeds) > 1:
            shown.append((MEAN_ROW, rows))
        for seed, mine in shown:
            cells = [
                estimate([r for r in mine if (r["subset"], r["metric"]) == (subset, metric)])
                for _, subset, metric in COLUMNS[evaluation]
            ]
            table.append({"model": model, "recipe": recipe, "seed": seed, "cells": cells})
    return table


def headlines(metrics: pl.DataFrame) -> list[dict]:
    """Per model the overall balanced accuracy of its last recipe and of its first (base).

    Args:
        metrics: `order_metrics`'s rows.
    """
    rows = metrics.filter(evaluation="balanced", subset="overall", metric="accuracy")
    found = []
    for (model,), part in rows.drop_nulls("value").group_by("model", maintain_order=True):
        recipe, first = part["recipe"][-1], part["recipe"][0]
        found.append(
            {
                "model": model,
                "recipe": recipe,
                "value": estimate(part.filter(recipe=recipe).to_dicts()),
                "base": estimate(part.filter(recipe="base").to_dicts())
                if first == "base" != recipe
                else None,
            }
        )
    return found


def compare(metrics: pl.DataFrame) -> list[dict]:
    """Each recipe against base in words, from the paired intervals of the `*_minus_base` rows.

    Args:
        metrics: `order_metrics`'s rows.

    Returns:
        Dicts of `evaluation`, `model`, `recipe`, `value` (see `estimate`) and `verdict`: within
        noise where the interval holds 0; with several seeds, of how many that is so.
    """
    balanced = {"evaluation": "balanced", "subset": "overall", "metric": "accuracy_minus_base"}
    flipflop = {"evaluation": "flipflop", "subset": "all", "metric": "difference_minus_base"}
    rows = pl.concat([metrics.filter(**balanced), metrics.filter(**flipflop)])
    found = []
    keys = ["evaluation", "model", "recipe"]
    for names, part in rows.group_by(keys, maintain_order=True):
        seeds = part.to_dicts()
        said = [_verdict(row) for row in seeds]
        if len(said) > 1:
            verdict = "; ".join(
                f"{one} for {said.count(one)} of {len(said)} seeds" for one in dict.fromkeys(said)
            )
        else:
            verdict = said[0]
        found.append(
            dict(zip(keys, names, strict=True)) | {"value": estimate(seeds), "verdict": verdict}
        )
    return found


def small_n(metrics: pl.DataFrame) -> str:
    """What the smallest n of a measured accuracy means for reading differences."""
    measured = pl.col("metric").is_in(["accuracy", "before", "after"]) & (pl.col("n") > 0)
    counts = metrics.drop_nulls("value").filter(measured)["n"]
    if counts.is_empty():
        return "No accuracy was measured in this run, so no difference can be read from it."
    n = counts.min()
    # Half-width of the normal interval of a proportion of one half.
    half = 100 * 1.96 * math.sqrt(0.25 / n)
    advice = "With n this small, compare intervals, not points. " if n < 500 else ""
    return (
        f"{advice}The smallest evaluation set here has n = {n:,}; there the 95% interval of an "
        f"accuracy near one half reaches about {half:.0f} points to either side."
    )


def _percent(value: float, signed: bool = False) -> str:
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−")


def _verdict(row: dict) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if row["value"] is None or low is None or high is None:
        return "not compared, there is no interval"
    if low <= 0 <= high:
        return "within noise"
    return "above base" if low > 0 else "below base"
