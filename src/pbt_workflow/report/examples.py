"""One dialogue per evaluation and model, the replies of every recipe side by side."""

from pathlib import Path

import polars as pl

from pbt_workflow.evaluate.team import speaks
from pbt_workflow.report.plots import Look
from pbt_workflow.report.samples import scan_parts
from pbt_workflow.report.trees import STATES, UNSTATED
from pbt_workflow.seeds import unit_interval

ITEM = ["evaluation", "model", "subset", "item_id"]
UNJUDGED = ("unstated", "", "not judged")
# How the misinformation evaluation counts an answer.
JUDGEMENTS = {
    "correct": ("right", "✓", "correct"),
    "wrong": ("wrong", "✗", "wrong"),
    "unchanged": ("unstated", "–", "counts as unchanged"),
}


def example_dialogues(
    run: str, responses: list[Path], looks: dict[str, Look]
) -> dict[str, list[dict]]:
    """Per evaluation an item of each model that all its recipes replied to.

    The item is drawn by a hash of the run's name, the evaluation and the item, and so is the same
    for models that were asked the same. Items whose dialogue more recipes continued come first (a
    misinformation dialogue has one answer only where that was wrong). Of several seeds the first
    is shown. The files are only scanned; of their texts no more is kept than is shown.

    Args:
        run: the run's name.
        responses: judged replies (schema `responses`), any number of evaluations and models.
        looks: recipes in the order in which they are shown.

    Returns:
        Evaluation -> dicts of `model`, `subset`, `accepted` (normalised), `prompt` (messages that
        open the dialogue) and `columns`: dicts of `recipe` and `turns` (see `_turns`).
    """
    # Replies on dev rows, which select an adapter, have an epoch.
    rows = scan_parts(responses, "responses").filter(pl.col("epoch").is_null())
    seeds = rows.group_by("model").agg(seed=pl.col("seed").min()).collect().to_dicts()
    recipe = pl.col("recipe")
    items = (
        rows.filter(_any_of(seeds))
        .group_by(ITEM)
        .agg(recipes=recipe.n_unique(), continued=recipe.filter(pl.col("turn") > 0).n_unique())
        .collect()
    )
    chosen = {}
    for evaluation, model, subset, item_id, *counts in sorted(items.iter_rows()):
        draw = unit_interval("report", run, evaluation, subset, item_id)
        rank = (*(-count for count in counts), draw)
        best = chosen.setdefault((evaluation, model), (rank, subset, item_id))
        chosen[evaluation, model] = min(best, (rank, subset, item_id))
    keys = [(*key, *item) for key, (_, *item) in chosen.items()]
    # A filter, unlike a join, is applied while a file is read, before its texts are.
    shown = [dict(zip(ITEM, key, strict=True)) for key in keys]
    # Free replies before the answers asked for after them.
    order = ["turn", pl.col("judgement").is_not_null()]
    texts = rows.filter(_any_of(seeds), _any_of(shown)).collect().sort(order, maintain_order=True)
    found: dict[str, list[dict]] = {}
    for evaluation, model, subset, _ in keys:
        mine = texts.filter(pl.col("evaluation") == evaluation, pl.col("model") == model)
        spoken = {name: mine.filter(recipe=name).to_dicts() for name in looks}
        opening = mine.row(0, named=True)
        found.setdefault(evaluation, []).append(
            {
                "model": model,
                "subset": subset,
                "accepted": opening["normalized_aliases"],
                "prompt": opening["prompt"],
                "columns": [
                    {"recipe": name, "turns": _turns(turns, opening["prompt"])}
                    for name, turns in spoken.items()
                    if turns
                ],
            }
        )
    return found


def _any_of(rows: list[dict]) -> pl.Expr:
    """Whether a row has the values of any of `rows`."""
    return pl.any_horizontal(
        pl.lit(False),
        *(pl.all_horizontal(pl.col(name) == value for name, value in row.items()) for row in rows),
    )


def _turns(rows: list[dict], shown: list[dict]) -> list[dict]:
    """Each reply of a dialogue with what it replies to.

    Args:
        rows: `responses` rows of one dialogue, in order.
        shown: the messages that stand above the dialogue.

    Returns:
        Dicts of `speaker` (in a team), `said` (the user's message before the reply; None where it
        is shown already), `again` (the dialogue's question is asked once more), `text`, `answer`
        (or None) and `state` (CSS class, sign, words).
    """
    question = [message["content"] for message in shown[-1:]]
    turns = []
    for row in rows:
        said = [m["content"] for m in row["prompt"] if m["role"] == "user"][-1:]
        team, opens = row["evaluation"] == "team", row["prompt"] == shown
        again = said == question and not opens
        turns.append(
            {
                "speaker": _speaker(row) if team else "",
                # In a team it is the turn before.
                "said": None if team or opens or again else "".join(said),
                "again": again,
                "text": row["text"],
                "answer": row["belief"] or row["extracted"] or None,
                "state": _state(row),
            }
        )
    return turns


def _speaker(row: dict) -> str:
    partner, _, order = row["subset"].rpartition("/")
    strong = speaks(order, row["turn"]) == "strong"
    return f"{row['model']} (strong)" if strong else f"{partner} (partner)"


def _state(row: dict) -> tuple[str, str, str]:
    if row["evaluation"] == "misinformation":
        return JUDGEMENTS.get(row["judgement"], UNJUDGED)
    return UNSTATED if row["belief"] is None else STATES[row["correct"]]
