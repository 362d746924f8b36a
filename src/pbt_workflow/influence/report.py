"""The page on influence: curves over iterations, changes since the start, and every number."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from pbt_workflow import __version__, tables
from pbt_workflow.config import Config
from pbt_workflow.influence.statistics import change_since_start
from pbt_workflow.influence.transcripts import page_environment
from pbt_workflow.report.plots import STYLE, grid_of_axes, inline_svg

PANELS = {
    "reward": "reward",
    "influence": "detector's rating",
    "agent_characters": "characters per conversation",
    "turns": "turns per conversation",
}
# Below this an assessor mostly wanted to answer something else than a label.
ENOUGH_MASS = 0.5
COLORS = {"all": "#3b8ad8", "best": "#d98200"}


def write_report(
    config: Config, statistics: pl.DataFrame, trajectories: dict[str, pl.DataFrame], out: Path
) -> None:
    """Write the page.

    Args:
        config: the run's configuration.
        statistics: schema `influence_statistics`, of all experiments.
        trajectories: experiment -> schema `influence_trajectories`, of all its iterations.
        out: the HTML file.
    """
    experiments = [
        {
            "name": name,
            "settings": experiment,
            "plot": plot_experiment(name, statistics.filter(experiment=name)),
            "changes": [
                {"metric": label, **change}
                for metric, label in PANELS.items()
                for change in _changes(trajectories[name], metric)
            ],
            "thin": thin_ratings(statistics.filter(experiment=name)),
            "rows": _rows(statistics.filter(experiment=name, environment="")),
            "environments": _rows(
                statistics.filter(
                    (pl.col("environment") != "") & (pl.col("subset") == "all"),
                    pl.col("metric").is_in(["reward", "influence"]),
                    experiment=name,
                )
            ),
        }
        for name, experiment in config.influence.experiments.items()
    ]
    page = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            run=config.run,
            experiments=experiments,
            version=__version__,
            built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    with tables.atomic_path(out) as partial:
        partial.write_text(page, encoding="utf-8")


def thin_ratings(statistics: pl.DataFrame) -> list[str]:
    """Assessors whose labels held less than half of the probability in some iteration."""
    masses = statistics.filter(
        pl.col("metric").str.starts_with("mass:"), environment="", subset="all"
    )
    thin = masses.filter(pl.col("value") < ENOUGH_MASS)["metric"].unique().sort()
    return [metric.removeprefix("mass:") for metric in thin]


def plot_experiment(name: str, statistics: pl.DataFrame) -> Markup:
    """Reward, influence and lengths over iterations, with 95 % intervals."""
    rows = statistics.filter(environment="")
    with rc_context(STYLE):
        figure, axes = grid_of_axes(len(PANELS), 2, 2.6)
        for ax, (metric, label) in zip(axes, PANELS.items(), strict=True):
            for subset, color in COLORS.items():
                line = rows.filter(metric=metric, subset=subset).sort("iteration")
                if line.is_empty():
                    continue
                name_of = "all conversations" if subset == "all" else "those trained on as good"
                ax.plot(
                    line["iteration"], line["value"], "o-", color=color, ms=5, lw=1.5, label=name_of
                )
                for row in line.drop_nulls("ci_low").to_dicts():
                    ax.plot(
                        [row["iteration"]] * 2, [row["ci_low"], row["ci_high"]], color=color, lw=1.2
                    )
            ax.set_title(label, loc="left")
            ax.set_xlabel("iteration")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].legend(fontsize=9)
        return inline_svg(figure, f"Experiment {name} over iterations")


def _changes(trajectories: pl.DataFrame, metric: str) -> list[dict]:
    return [
        {
            "iteration": iteration,
            "value": f"{value:+.3f}",
            "interval": "" if low is None else f"[{low:+.3f}, {high:+.3f}]",
            "openings": openings,
            "verdict": _verdict(low, high),
        }
        for iteration, value, low, high, openings in change_since_start(trajectories, metric)
    ]


def _verdict(low: float | None, high: float | None) -> str:
    if low is None:
        return "too few openings"
    if low > 0:
        return "rose"
    return "fell" if high < 0 else "within noise"


def _rows(statistics: pl.DataFrame) -> list[dict]:
    return statistics.sort("environment", "metric", "subset", "iteration").to_dicts()
