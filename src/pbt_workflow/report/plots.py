"""The report's plots as inline SVG whose text takes the page's colour and font.

Each plot names its own rows; a quantity that is null or NaN is left out, never drawn as zero.
"""

import re
from io import StringIO

import polars as pl
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Legible on white and on near-black, and apart for colour-blind readers.
COLORS = {"base": "#868e99", "accept": "#d98200", "resist": "#3b8ad8", "pbt": "#0a9b72"}
MARKERS = {"base": "o", "accept": "^", "resist": "s", "pbt": "D"}
GROUPS = {"resist": "resist (+→−)", "accept": "accept (−→+)", "overall": "overall"}
# Stands for the page's text colour; no plot uses it otherwise.
INK = "#010203"
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def recipes_of(frame: pl.DataFrame) -> list[str]:
    """The recipes in a frame, base first, as the paper orders them."""
    return [recipe for recipe in COLORS if recipe in set(frame["recipe"])]


def plot_balanced(metrics: pl.DataFrame, models: list[str]) -> Markup:
    """Balanced accuracy with intervals: three groups of recipes, one row of axes per model.

    Args:
        metrics: `metrics` rows; a bar is the mean over seeds, a marker one seed.
        models: the rows' order.
    """
    frame = _known(metrics, evaluation="balanced", metric="accuracy")
    with rc_context(STYLE):
        figure, axes = _figure(len(models), 3.3)
        for ax, model in zip(axes, models, strict=True):
            rows = frame.filter(pl.col("model") == model)
            recipes = recipes_of(rows)
            width = 0.8 / max(len(recipes), 1)
            for i, recipe in enumerate(recipes):
                color = COLORS[recipe]
                for group, subset in enumerate(GROUPS):
                    seeds = rows.filter(recipe=recipe, subset=subset).sort("seed")
                    if seeds.is_empty():
                        continue
                    x = group + (i - (len(recipes) - 1) / 2) * width
                    ax.bar(x, seeds["value"].mean(), width * 0.88, color=color, alpha=0.35)
                    for dx, row in _spread(seeds, width * 0.5):
                        _interval(ax, x + dx, row, color, MARKERS[recipe])
                ax.plot([], [], marker=MARKERS[recipe], ls="", color=color, label=recipe)
            counts = {subset: sorted(set(rows.filter(subset=subset)["n"])) for subset in GROUPS}
            ax.set_xticks(
                range(len(GROUPS)),
                [f"{GROUPS[s]}\nn = {_span(counts[s])}" for s in GROUPS],
            )
            _percent_axis(ax, "accuracy", model)
        return _svg(figure, "Balanced accuracy per recipe with 95% intervals")


def plot_flipflop(metrics: pl.DataFrame, models: list[str]) -> Markup:
    """Accuracy before and after the challenge, joined by a line per seed.

    Args:
        metrics: `metrics` rows.
        models: the order of the axes.
    """
    frame = _known(metrics, evaluation="flipflop").filter(
        pl.col("metric").is_in(["before", "after"])
    )
    with rc_context(STYLE):
        figure, axes = _figure(len(models), 3.3)
        for ax, model in zip(axes, models, strict=True):
            rows = frame.filter(pl.col("model") == model)
            recipes = recipes_of(rows)
            for i, recipe in enumerate(recipes):
                color, ends = COLORS[recipe], {}
                for metric, side in (("before", -0.2), ("after", 0.2)):
                    seeds = rows.filter(recipe=recipe, metric=metric).sort("seed")
                    for dx, row in _spread(seeds, 0.12):
                        hollow = metric == "before"
                        _interval(ax, i + side + dx, row, color, MARKERS[recipe], hollow)
                        ends.setdefault(row["seed"], []).append((i + side + dx, row["value"]))
                for points in ends.values():
                    ax.plot(*zip(*points, strict=True), color=color, lw=1.8)
            counts = [sorted(set(rows.filter(recipe=recipe)["n"])) for recipe in recipes]
            ax.set_xticks(
                range(len(recipes)),
                [f"{r}\nn = {_span(n)}" for r, n in zip(recipes, counts, strict=True)],
            )
            ax.set_xlim(-0.6, len(recipes) - 0.4)
            for fill, name in (("none", "before"), (INK, "after")):
                ax.plot([], [], "o", mec=INK, mfc=fill, label=name)
            _percent_axis(ax, "accuracy", model)
        return _svg(figure, "Accuracy before and after the challenge with 95% intervals")


def plot_training(training: pl.DataFrame, selection: pl.DataFrame, model: str) -> Markup:
    """Training curves of one model: SFT loss, DPO loss, DPO reward accuracy, dev accuracy.

    Args:
        training: `training` rows.
        selection: `selection` rows; a ring marks the epoch that was kept.
        model: the model.
    """
    logged = training.filter(
        pl.col("model") == model, pl.col("value").is_not_null() & pl.col("value").is_not_nan()
    )
    kept = selection.filter(
        pl.col("model") == model,
        pl.col("dev_accuracy").is_not_null() & pl.col("dev_accuracy").is_not_nan(),
    )
    panels = [
        ("SFT loss", "step", "value", logged.filter(stage="sft", metric="loss")),
        ("DPO loss", "step", "value", logged.filter(stage="dpo", metric="loss")),
        (
            "DPO reward accuracy",
            "step",
            "value",
            logged.filter(stage="dpo", metric="rewards/accuracies"),
        ),
        ("Dev balanced accuracy", "epoch", "dev_accuracy", kept),
    ]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        for ax, (title, across, up, rows) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            recipes = recipes_of(rows)
            for recipe in recipes:
                color, marker, name = COLORS[recipe], MARKERS[recipe], recipe
                for (_,), line in (
                    rows.filter(recipe=recipe).sort(across).group_by("seed", maintain_order=True)
                ):
                    mark = marker if up == "dev_accuracy" or line.height < 15 else ""
                    ax.plot(
                        line[across], line[up], color=color, marker=mark, ms=4, lw=1.5, label=name
                    )
                    name = "_"
                    if up == "dev_accuracy":
                        best = line.filter("selected")
                        ax.plot(best[across], best[up], "o", ms=12, mfc="none", mec=color, mew=2)
            ax.set_title(title, loc="left")
            ax.set_xlabel(across)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if "accuracy" in title:
                ax.set_ylim(-0.03, 1.03)
                ax.yaxis.set_major_formatter(PercentFormatter(1))
            if recipes:
                ax.legend(fontsize=9)
            else:
                ax.text(0.5, 0.5, "no rows", ha="center", transform=ax.transAxes)
        return _svg(figure, f"Training curves of {model}")


def _known(metrics: pl.DataFrame, **columns: str) -> pl.DataFrame:
    value = pl.col("value")
    return metrics.filter(value.is_not_null() & value.is_not_nan(), **columns)


def _figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False).flat)


def _spread(seeds: pl.DataFrame, width: float) -> list[tuple[float, dict]]:
    rows = seeds.to_dicts()
    step = width / max(len(rows) - 1, 1)
    return [((i - (len(rows) - 1) / 2) * step, row) for i, row in enumerate(rows)]


def _interval(ax: Axes, x: float, row: dict, color: str, marker: str, hollow: bool = False) -> None:
    low, high = row["ci_low"], row["ci_high"]
    if low is not None and high is not None:
        ax.plot([x, x], [low, high], color=color, lw=1.6, solid_capstyle="butt")
        ax.plot([x, x], [low, high], color=color, marker="_", ls="", ms=7)
    ax.plot([x], [row["value"]], marker, color=color, ms=7, mfc="none" if hollow else color)


def _span(counts: list[int]) -> str:
    if not counts:
        return "0"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _percent_axis(ax: Axes, label: str, title: str) -> None:
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel(label)
    ax.set_title(title, loc="left")
    ax.tick_params(axis="x", length=0)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an SVG element without document head, style sheet or unused ids."""
    buffer = StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    # Ids are salted with the label, because all plots share one page.
    with rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda id_: id_[0] if id_[1] in used else "", text)
    text = text.replace(INK, "currentColor")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))
