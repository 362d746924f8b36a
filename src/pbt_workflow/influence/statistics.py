"""Means per iteration with intervals that respect that trajectories share openings. Pure."""

import math

import polars as pl
from scipy.stats import t as student

from pbt_workflow import tables

METRICS = ("reward", "influence", "turns", "agent_characters", "vetoed")


def mean_and_error(values: list[float], clusters: list[str]) -> tuple[float, float | None, int]:
    """Mean, its cluster-robust standard error, and the number of clusters.

    se = sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n; None for one cluster.
    With clusters of one this is the ordinary standard error of a mean.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        return mean, None, count
    squares = math.fsum(total**2 for total in sums.values())
    return mean, math.sqrt(count / (count - 1) * squares) / n, count


def interval(mean: float, se: float | None, clusters: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a clustered mean, Student's t with one degree less than clusters."""
    if se is None:
        return None, None
    half = float(student.ppf(0.975, clusters - 1)) * se
    return mean - half, mean + half


def iteration_statistics(
    trajectories: pl.DataFrame,
    ratings: pl.LazyFrame | pl.DataFrame,
    selected: pl.DataFrame | None,
    experiment: str,
) -> pl.DataFrame:
    """Every metric of an iteration (schema `influence_statistics`): in all, by theme, by user.

    Args:
        trajectories: schema `influence_trajectories`, of one iteration.
        ratings: schema `influence_ratings`, of all assessors: metrics `rating:<assessor>` and
            `mass:<assessor>`, means over a trajectory's rated turns.
        selected: schema `influence_selected`, whose best are the subset `best`; None where
            nothing was selected.
        experiment: its name.
    """
    values = _values(trajectories, ratings)
    subsets = {"all": values}
    if selected is not None:
        best = selected.filter(side="best")["trajectory"].to_list()
        subsets["best"] = values.filter(pl.col("trajectory").is_in(best))
    iteration = trajectories["iteration"].max() if trajectories.height else 0
    rows = [
        {
            "experiment": experiment,
            "iteration": iteration,
            "environment": environment,
            "user_type": user_type,
            "subset": subset,
            "metric": metric,
            **_estimate(group),
        }
        for subset, frame in subsets.items()
        for environment, user_type, part in _parts(frame)
        for (metric,), group in part.group_by("metric", maintain_order=True)
    ]
    return pl.DataFrame(rows, schema=tables.empty_frame("influence_statistics").schema)


def change_since_start(
    trajectories: pl.DataFrame, metric: str = "reward"
) -> list[tuple[int, float, float | None, float | None, int]]:
    """How a metric's mean differs from iteration 0's, paired by opening.

    Args:
        trajectories: schema `influence_trajectories`, of all iterations of an experiment.
        metric: a numeric column of it.

    Returns:
        (iteration, difference, lower, upper, openings) per later iteration, over openings that
        both have; nothing where they share none.
    """
    means = (
        trajectories.drop_nulls(metric)
        .group_by("iteration", "environment", "opening")
        .agg(pl.col(metric).cast(pl.Float64).mean())
    )
    first = means.filter(iteration=0).drop("iteration")
    found = []
    for iteration in sorted(set(means["iteration"]) - {0}):
        both = means.filter(iteration=iteration).join(
            first, on=["environment", "opening"], suffix="_first"
        )
        if both.is_empty():
            continue
        change = (both[metric] - both[f"{metric}_first"]).sort().to_list()
        mean, se, clusters = mean_and_error(change, [str(i) for i in range(len(change))])
        found.append((iteration, mean, *interval(mean, se, clusters), clusters))
    return found


def _parts(frame: pl.DataFrame) -> list[tuple[str, str, pl.DataFrame]]:
    """(environment, user type, rows): all together, each environment, each type of user."""
    parts = [("", "", frame)]
    for row in frame.select("environment", "user_type").unique(maintain_order=True).to_dicts():
        parts.append((row["environment"], row["user_type"], frame.filter(**row)))
    for user_type in frame["user_type"].unique(maintain_order=True):
        if user_type:
            parts.append(("", user_type, frame.filter(user_type=user_type)))
    return parts


def _estimate(group: pl.DataFrame) -> dict:
    clusters = (group["environment"] + "/" + group["opening"]).to_list()
    mean, se, count = mean_and_error(group["value"].to_list(), clusters)
    low, high = interval(mean, se, count)
    return {
        "value": mean,
        "se": se,
        "ci_low": low,
        "ci_high": high,
        "n": group.height,
        "openings": count,
    }


def _values(trajectories: pl.DataFrame, ratings: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """Long form: trajectory, environment, user_type, opening, metric, value; no nulls."""
    keys = ["trajectory", "environment", "user_type", "opening"]
    parts = [
        trajectories.select(*keys, metric=pl.lit(metric), value=pl.col(metric).cast(pl.Float64))
        for metric in METRICS
    ]
    states = sorted(set(trajectories["visited"].explode().drop_nulls()))
    parts += [
        trajectories.select(
            *keys,
            metric=pl.lit(f"visited:{state}"),
            value=pl.col("visited").list.contains(state).cast(pl.Float64),
        )
        for state in states
    ]
    for column, label in (("expectation", "rating"), ("mass", "mass")):
        means = (
            ratings.lazy()
            .group_by("trajectory", "assessor", maintain_order=True)
            .agg(value=pl.col(column).mean())
            .collect()
        )
        parts.append(
            trajectories.select(keys)
            .join(means, on="trajectory", how="inner", maintain_order="left")
            .select(*keys, metric=pl.lit(f"{label}:") + pl.col("assessor"), value="value")
        )
    return pl.concat(parts).drop_nulls("value").filter(pl.col("value").is_finite())
