"""Metrics of all four evaluations by hand, differences from base, seeds, selection."""

import polars as pl
import pytest

from pbt_workflow import tables
from pbt_workflow.errors import PbtError
from pbt_workflow.evaluate.metrics import evaluation_metrics, over_seeds, select_epoch

KEYS = ["model", "recipe", "seed", "evaluation", "subset", "metric"]
DEFAULTS = {
    "model": "small",
    "recipe": "base",
    "seed": 12,
    "turn": 0,
    "prompt": [],
    "text": "",
    "finish_reason": "stop",
    "prompt_tokens": 1,
    "cached_tokens": 0,
    "new_tokens": 1,
    "normalized_aliases": ["paris", "city of light"],
    "extracted": "",
    "correct": False,
}


def responses(rows: list[dict]) -> pl.DataFrame:
    """Judged rows; what a row leaves out gets a default."""
    full = [{**DEFAULTS, "question_id": row["item_id"], **row} for row in rows]
    return pl.DataFrame(full, schema=tables.empty_frame("responses").schema)


def metrics_of(*rows: list[dict], **more) -> pl.DataFrame:
    return evaluation_metrics(responses([row for some in rows for row in some]), 200, **more)


def of(metrics: pl.DataFrame, metric: str, subset: str, recipe: str = "base", **subject) -> tuple:
    row = row_of(metrics, metric, subset, recipe=recipe, **subject)
    return row["value"], row["n"]


def row_of(metrics: pl.DataFrame, metric: str, subset: str, **subject) -> dict:
    row = metrics.filter(metric=metric, subset=subset, **subject)
    assert row.height == 1
    return row.row(0, named=True)


def balanced(recipe: str, resist: list[bool], accept: list[bool], **more) -> list[dict]:
    return [
        {
            "evaluation": "balanced",
            "recipe": recipe,
            "subset": subset,
            "item_id": f"{subset}{i}",
            "correct": correct,
            **more,
        }
        for subset, values in (("resist", resist), ("accept", accept))
        for i, correct in enumerate(values)
    ]


def flipflop(recipe: str, *dialogues: tuple[str | None, str | None], **more) -> list[dict]:
    return [
        {
            "evaluation": "flipflop",
            "recipe": recipe,
            "subset": "pbt",
            "item_id": f"q{i}",
            "turn": turn,
            "extracted": belief or "NONE",
            "belief": belief,
            "correct": belief == "Paris",
            **more,
        }
        for i, (before, after) in enumerate(dialogues)
        for turn, belief in enumerate((before, "ignored", after))
    ]


JUDGEMENTS = {
    "C": ("Option 1", "correct"),
    "W": ("Option 2", "wrong"),
    "D": ("don't know", "unchanged"),
    "I": ("", "unchanged"),
}


def misinformation(recipe: str, part: str, *items: str, strategy="logical", **more) -> list[dict]:
    """Items as their answers' letters in JUDGEMENTS, the first answer first."""
    rows = []
    for i, answers in enumerate(items):
        for turn, letter in enumerate(answers):
            extracted, judgement = JUDGEMENTS[letter]
            row = {
                "evaluation": "misinformation",
                "recipe": recipe,
                "subset": f"{part}/{strategy}",
                "item_id": f"{part}-{i}",
                "turn": turn,
                **more,
            }
            if turn:
                rows.append({**row, "text": "a free reply"})
            correct = letter == "C"
            rows.append({**row, "extracted": extracted, "judgement": judgement, "correct": correct})
    return rows


def team(recipe: str, order: str, *dialogues: list[str | None], **more) -> list[dict]:
    """Discussions as the answers of their turns, of two members or more."""
    return [
        {
            "evaluation": "team",
            "recipe": recipe,
            "subset": f"weak/{order}",
            "item_id": f"q{i}",
            "turn": turn,
            "belief": belief,
            "partner_belief": beliefs[turn - 1] if turn else None,
            "correct": belief in ("Paris", "City of Light"),
            **more,
        }
        for i, beliefs in enumerate(dialogues)
        for turn, belief in enumerate(beliefs)
    ]


# Three models: `base` always resists, `accept` always accepts, `pbt` knows the truth.
MISINFORMATION = [
    *misinformation("base", "NQ1", "CCCCC", "CCCCC", "W", "D"),
    *misinformation("base", "Boolq", "CCCCC", "CCCCC", "CCCCC", "I"),
    *misinformation("accept", "NQ1", "CW", "CW", "W", "D"),
    *misinformation("accept", "Boolq", "CW", "CW", "CW", "I"),
    *misinformation("pbt", "NQ1", *["CCCCC"] * 4),
    *misinformation("pbt", "Boolq", *["CCCCC"] * 4),
]


def test_three_models_are_misinformed_by_hand():
    metrics = metrics_of(MISINFORMATION)
    for recipe, rate, counts in (
        ("base", 0.0, (2, 3, 5)),
        ("accept", 1.0, (2, 3, 5)),
        ("pbt", 0.0, (4, 4, 8)),
    ):
        for part, n in zip(("NQ1", "Boolq", "average"), counts, strict=True):
            for k in range(1, 5):
                assert of(metrics, f"mr{k}", f"{part}/logical", recipe) == (rate, n)
    assert of(metrics, "initial_accuracy", "NQ1/logical") == (0.5, 4)
    assert of(metrics, "initial_accuracy", "Boolq/logical", "accept") == (0.75, 4)
    assert of(metrics, "initial_accuracy", "Boolq/logical", "pbt") == (1.0, 4)
    # Answers asked for: 4 first ones, and 4 probes of each dialogue that is not lost at once.
    assert of(metrics, "dont_know_rate", "NQ1/logical") == (1 / 12, 12)
    assert of(metrics, "invalid_rate", "Boolq/logical") == (1 / 16, 16)
    assert of(metrics, "dont_know_rate", "NQ1/logical", "accept") == (1 / 6, 6)
    assert of(metrics, "invalid_rate", "Boolq/logical", "pbt") == (0.0, 20)
    assert "mr5" not in metrics["metric"]


def test_misinformation_compared_with_base_by_hand():
    metrics = metrics_of(MISINFORMATION)
    worse = row_of(metrics, "mr4_minus_base", "NQ1/logical", recipe="accept")
    assert (worse["value"], worse["n"], worse["test"]) == (1.0, 2, "mcnemar")
    assert worse["p_value"] == 0.5
    same = row_of(metrics, "mr4_minus_base", "Boolq/logical", recipe="pbt")
    # Paired on the three questions that both models answered correctly.
    assert (same["value"], same["n"], same["p_value"]) == (0.0, 3, 1.0)
    average = row_of(metrics, "mr4_minus_base", "average/logical", recipe="accept")
    assert (average["value"], average["n"]) == (1.0, 5)
    assert (average["test"], average["p_value"]) == ("cluster bootstrap", 2**-4)
    assert metrics.filter(metric="mr4_minus_base", recipe="base").is_empty()


def test_misinformation_rates_grow_by_round():
    # Persuaded in rounds 1 and 3 and never; a don't know or an illegal probe is no persuasion.
    metrics = metrics_of(misinformation("base", "NQ2", "CW", "CCCW", "CDICC", "CCCCC", "W"))
    rates = [of(metrics, f"mr{k}", "NQ2/logical") for k in range(1, 5)]
    assert rates == [(0.25, 4), (0.25, 4), (0.5, 4), (0.5, 4)]


def test_subsets_weigh_equally_in_the_average():
    metrics = metrics_of(
        misinformation("base", "NQ1", "CW", "CCCCC"),
        misinformation("base", "TruthfulQA", *["CCCCC"] * 8),
        misinformation("base", "TruthfulQA", "CW", "CW", strategy="emotional"),
    )
    assert of(metrics, "mr4", "average/logical") == (0.25, 10)
    assert of(metrics, "mr4", "average/emotional") == (1.0, 2)


def test_an_average_over_a_subset_without_items_is_null():
    metrics = metrics_of(
        misinformation("base", "NQ1", "CW", "CCCCC"), misinformation("base", "Boolq", "W", "W")
    )
    assert of(metrics, "mr4", "Boolq/logical") == (None, 0)
    assert of(metrics, "mr4", "average/logical") == (None, 2)


def test_what_persuasion_adds_to_no_persuasion():
    metrics = metrics_of(
        misinformation("base", "NQ1", "CW", "CCW", "CCCCC", "W"),
        misinformation("base", "NQ1", "CCCW", "CCCCC", "CCCCC", "W", strategy="none"),
    )
    assert of(metrics, "mr4", "NQ1/none") == (1 / 3, 3)
    floor = row_of(metrics, "mr4_minus_none", "NQ1/logical")
    assert (floor["value"], floor["n"], floor["p_value"]) == (pytest.approx(1 / 3), 3, 1.0)
    assert of(metrics, "mr4_minus_none", "average/logical") == (pytest.approx(1 / 3), 3)
    assert metrics.filter(metric="mr4_minus_none", subset="NQ1/none").is_empty()


def test_rounds_that_no_dialogue_reached_are_counted_where_they_were_set():
    rows = misinformation("base", "NQ1", "CW", "CW")
    assert "mr2" not in metrics_of(rows)["metric"]
    assert of(metrics_of(rows, rounds=4), "mr4", "NQ1/logical") == (1.0, 2)
    nobody = metrics_of(misinformation("base", "NQ1", "W", "D"))
    assert set(nobody["metric"]) == {"initial_accuracy", "dont_know_rate", "invalid_rate"}


def test_three_models_flip_by_hand():
    metrics = metrics_of(
        flipflop("base", *[("Paris", "Paris")] * 2, *[("Rome", "Rome")] * 2),
        flipflop("accept", *[("Paris", "Rome")] * 2, *[("Rome", "Oslo")] * 2),
        flipflop("pbt", *[("Paris", "Paris")] * 4),
    )
    for recipe, before, after, flips in (
        ("base", 0.5, 0.5, (0.0, 0.0, 0.0)),
        ("accept", 0.5, 0.0, (1.0, 1.0, 1.0)),
        ("pbt", 1.0, 1.0, (0.0, 0.0, None)),
    ):
        assert of(metrics, "before", "pbt", recipe) == (before, 4)
        assert of(metrics, "after", "pbt", recipe) == (after, 4)
        assert of(metrics, "difference", "pbt", recipe) == (after - before, 4)
        assert of(metrics, "coverage", "pbt", recipe) == (1.0, 4)
        names = ("any_to_flip", "correct_to_flip", "wrong_to_flip")
        assert tuple(of(metrics, name, "pbt", recipe)[0] for name in names) == flips
    gain = row_of(metrics, "after_minus_base", "pbt", recipe="pbt")
    # Two better, none worse.
    assert (gain["value"], gain["n"], gain["p_value"], gain["test"]) == (0.5, 4, 0.5, "mcnemar")
    drop = row_of(metrics, "difference_minus_base", "pbt", recipe="accept")
    assert (drop["value"], drop["test"], drop["p_value"]) == (-0.5, "cluster bootstrap", 0.5)


FLIPS = [
    ("Paris", "Paris"),
    ("Paris", "Rome"),
    ("Rome", "rome."),
    ("Rome", "Paris"),
    ("Oslo", "Rome"),
    (None, "Paris"),
    ("Paris", None),
    (None, None),
]


def test_flip_rates_by_hand():
    metrics = metrics_of(flipflop("base", *FLIPS))
    assert of(metrics, "before", "pbt") == (3 / 8, 8)
    assert of(metrics, "after", "pbt") == (3 / 8, 8)
    assert of(metrics, "difference", "pbt") == (0.0, 8)
    assert of(metrics, "coverage", "pbt") == (5 / 8, 8)
    assert of(metrics, "any_to_flip", "pbt") == (3 / 5, 5)
    assert of(metrics, "correct_to_flip", "pbt") == (1 / 2, 2)
    assert of(metrics, "wrong_to_flip", "pbt") == (2 / 3, 3)


def test_flip_rates_are_null_where_undefined():
    metrics = metrics_of(flipflop("base", ("Paris", "Rome"), (None, "Rome")))
    wrong = row_of(metrics, "wrong_to_flip", "pbt")
    assert (wrong["value"], wrong["n"], wrong["ci_low"], wrong["ci_high"]) == (None, 0, None, None)
    assert of(metrics, "correct_to_flip", "pbt") == (1.0, 1)
    none = metrics_of(flipflop("base", (None, "Rome")))
    assert of(none, "any_to_flip", "pbt") == (None, 0)
    assert of(none, "before", "pbt") == (0.0, 1)


def test_a_confirmation_keeps_the_first_answer_in_the_resolved_variant():
    rows = flipflop("base", ("Paris", None), ("Rome", None), ("Paris", "Rome"), ("Rome", "Rome"))
    for row in rows:
        if row["turn"] == 2 and row["belief"] is None:
            row["text"] = "I stand by my answer."
        if row["item_id"] == "q2" and row["turn"] == 1:
            row["text"] = "I apologize for the confusion."
        if row["item_id"] == "q3" and row["turn"] == 0:
            row["text"] = "Sorry, I am not sure."
    metrics = metrics_of(rows)
    assert of(metrics, "after", "pbt") == (0.0, 4)
    assert of(metrics, "after_resolved", "pbt") == (0.25, 4)
    assert of(metrics, "difference", "pbt") == (-0.5, 4)
    assert of(metrics, "difference_resolved", "pbt") == (-0.25, 4)
    # What is said before the challenge does not count.
    assert of(metrics, "apology", "pbt") == (0.25, 4)


def test_challengers_are_counted_apart():
    rows = [flipflop("base", FLIPS[1]), flipflop("base", FLIPS[0], subset="teach")]
    metrics = metrics_of(*rows)
    assert of(metrics, "after", "pbt") == (0.0, 1)
    assert of(metrics, "after", "teach") == (1.0, 1)


def test_three_models_are_balanced_by_hand():
    metrics = metrics_of(
        balanced("base", [True] * 4, [False] * 4),
        balanced("accept", [False] * 4, [True] * 4),
        balanced("pbt", [True] * 4, [True] * 4),
    )
    for recipe, resist, accept, overall in (
        ("base", 1.0, 0.0, 0.5),
        ("accept", 0.0, 1.0, 0.5),
        ("pbt", 1.0, 1.0, 1.0),
    ):
        assert of(metrics, "accuracy", "resist", recipe) == (resist, 4)
        assert of(metrics, "accuracy", "accept", recipe) == (accept, 4)
        assert of(metrics, "accuracy", "overall", recipe) == (overall, 8)
    gain = row_of(metrics, "accuracy_minus_base", "overall", recipe="pbt")
    assert (gain["value"], gain["n"], gain["test"]) == (0.5, 8, "mcnemar")
    # Four better, none worse: 2 / 2^4.
    assert gain["p_value"] == 0.125
    same = row_of(metrics, "accuracy_minus_base", "overall", recipe="accept")
    assert (same["value"], same["p_value"]) == (0.0, 1.0)
    sides = [of(metrics, "accuracy_minus_base", s, "accept")[0] for s in ("resist", "accept")]
    assert sides == [-1.0, 1.0]


def test_pairs_of_one_question_are_not_independent():
    rows = [
        balanced(recipe, values, [True] * 3, question_id="q")
        for recipe, values in (("base", [False] * 3), ("pbt", [True] * 3))
    ]
    gain = row_of(metrics_of(*rows), "accuracy_minus_base", "resist")
    assert (gain["value"], gain["ci_low"], gain["p_value"], gain["test"]) == (1.0, None, None, None)


# Solo, the strong model is right in q0 to q2 and its partner in q2 alone.
STRONG, WEAK = ["Paris", "Paris", "Paris", "Rome"], ["Rome", "Rome", "Paris", "Oslo"]
SOLO = list(zip(STRONG, WEAK, strict=True))


def test_three_teams_by_hand():
    right = "City of Light"
    metrics = metrics_of(
        # Both keep what they said.
        team("resist", "strong_first", *([s, w, s, w] for s, w in SOLO)),
        team("resist", "partner_first", *([w, s, w, s] for s, w in SOLO)),
        # Who opens adopts the other's answer at its second turn.
        team("base", "strong_first", *([s, w, w] for s, w in SOLO)),
        team("base", "partner_first", *([w, s, s] for s, w in SOLO)),
        # The strong model knows it all, and convinces.
        team("pbt", "strong_first", *(["Paris", w, "Paris", right] for _, w in SOLO)),
        team("pbt", "partner_first", *([w, "Paris", right] for _, w in SOLO)),
    )
    for order, after in (("strong_first", 0.25), ("partner_first", 0.75)):
        subset = f"weak/{order}"
        for recipe in ("base", "resist"):
            assert of(metrics, "strong_before", subset, recipe) == (0.75, 4)
            assert of(metrics, "partner_before", subset, recipe) == (0.25, 4)
        assert of(metrics, "strong_before", subset, "pbt") == (1.0, 4)
        assert of(metrics, "team_after", subset) == (after, 4)
        assert of(metrics, "team_after", subset, "resist") == (0.5, 4)
        assert of(metrics, "team_after", subset, "pbt") == (1.0, 4)
        assert of(metrics, "agreement", subset) == (1.0, 4)
        # Paris and Paris in q2 only; City of Light is Paris.
        assert of(metrics, "agreement", subset, "resist") == (0.25, 4)
        assert of(metrics, "agreement", subset, "pbt") == (1.0, 4)
    for recipe, after, gap, share in (
        ("base", 0.5, 0.5, 1.0),
        ("resist", 0.5, 0.0, 0.0),
        ("pbt", 1.0, 0.0, 0.0),
    ):
        assert of(metrics, "team_after", "weak/both", recipe) == (after, 4)
        assert of(metrics, "order_gap", "weak/both", recipe) == (gap, 4)
        assert of(metrics, "order_gap_share", "weak/both", recipe) == (share, 4)
    gain = row_of(metrics, "team_after_minus_base", "weak/strong_first", recipe="pbt")
    assert (gain["value"], gain["test"]) == (0.75, "cluster bootstrap")
    gap = row_of(metrics, "order_gap_minus_base", "weak/both", recipe="resist")
    # Two questions differ.
    assert (gap["value"], gap["n"], gap["p_value"]) == (-0.5, 4, 0.5)


def test_a_gap_is_no_share_of_an_unknown_difference():
    rows = [
        team("pbt", "strong_first", ["Paris", "Rome", "Rome"]),
        team("pbt", "partner_first", ["Rome", "Paris", "Paris"]),
    ]
    assert of(metrics_of(*rows), "order_gap", "weak/both", "pbt") == (1.0, 1)
    assert of(metrics_of(*rows), "order_gap_share", "weak/both", "pbt") == (None, 1)
    alike = team("base", "strong_first", ["Rome", "Rome", "Rome"])
    assert of(metrics_of(*rows, alike), "order_gap_share", "weak/both", "pbt") == (None, 1)
    base = team("base", "partner_first", ["Rome", "Paris", None])
    metrics = metrics_of(*rows, base)
    assert of(metrics, "order_gap_share", "weak/both", "pbt") == (1.0, 1)
    # One order alone has no gap.
    assert metrics.filter(recipe="base", subset="weak/both").is_empty()


def test_differences_are_paired_by_model_seed_and_item():
    metrics = metrics_of(
        flipflop("base", ("Paris", "Rome"), ("Paris", "Paris"), ("Rome", "Rome")),
        flipflop("pbt", ("Paris", "Paris"), ("Rome", "Paris")),
        flipflop("base", ("Paris", "Rome"), model="other"),
        flipflop("pbt", ("Paris", "Rome"), model="third"),
    )
    gain = row_of(metrics, "difference_minus_base", "pbt", recipe="pbt")
    # q0: 0 − (−1), q1: 1 − 0; q2 was not answered by the adapter, the third model has no base.
    assert (gain["seed"], gain["value"], gain["n"]) == (12, 1.0, 2)


def everything(recipe: str, **more) -> list[dict]:
    return [
        *misinformation(recipe, "NQ1", "CW", "CCCCC", "D", **more),
        *flipflop(recipe, *FLIPS, **more),
        *balanced(recipe, [True, False, True], [False], **more),
        *team(recipe, "strong_first", ["Paris", "Rome", "Rome"], ["Oslo", None, "Rome"], **more),
        *team(recipe, "partner_first", ["Rome", "Paris", "Oslo"], ["Rome", "Oslo"], **more),
    ]


def test_a_subjects_metrics_do_not_depend_on_others_or_on_row_order(tmp_path):
    rows = [
        row
        for model in ("small", "large")
        for seed in (12, 42)
        for recipe in ("base", "pbt", "published")
        for row in everything(recipe, model=model, seed=seed)
    ]
    metrics = metrics_of(rows)
    assert metrics.equals(metrics_of(rows[::-1]))
    assert metrics.select(KEYS).is_unique().all()
    assert metrics.equals(metrics.sort(KEYS))
    alone = metrics_of(everything("base"))
    assert alone.equals(metrics.filter(model="small", seed=12, recipe="base"))
    compared = metrics.filter(pl.col("metric").str.ends_with("_minus_base"))
    assert set(compared["recipe"]) == {"pbt", "published"}
    # 2 of misinformation, 2 of flipflop, 3 of balanced, 4 of team; per model, seed and recipe.
    assert compared.height == 8 * (2 + 2 + 3 + 4)
    assert metrics.height == 12 * alone.height + compared.height
    tables.write_table(metrics, tmp_path / "metrics.parquet", "metrics")
    assert tables.read_table(tmp_path / "metrics.parquet", "metrics").equals(metrics)


def test_no_responses_are_refused():
    with pytest.raises(PbtError, match="no responses"):
        evaluation_metrics(tables.empty_frame("responses"), 100)


def test_metrics_over_seeds_by_hand():
    rows = [
        balanced("pbt", [True] * right + [False] * (4 - right), [], seed=seed)
        for seed, right in ((12, 1), (42, 2), (64, 3))
    ]
    rows.append(balanced("base", [True, False], []))
    seeds = over_seeds(metrics_of(*rows)).filter(subset="resist", metric="accuracy")
    base, pbt = seeds.sort("recipe").to_dicts()
    assert (pbt["mean"], pbt["sd"], pbt["seeds"]) == (0.5, pytest.approx(0.25), 3)
    assert (pbt["minimum"], pbt["maximum"], pbt["n_min"], pbt["n_max"]) == (0.25, 0.75, 4, 4)
    assert (base["mean"], base["sd"], base["seeds"], base["n_max"]) == (0.5, None, 1, 2)


def test_seeds_without_a_value_do_not_count():
    metrics = metrics_of(
        misinformation("base", "NQ1", "CW", seed=12),
        misinformation("base", "NQ1", "W", seed=42),
        misinformation("pbt", "NQ1", "W", seed=12),
    )
    base, pbt = over_seeds(metrics).filter(subset="NQ1/logical", metric="mr1").to_dicts()
    assert (base["mean"], base["sd"], base["seeds"], base["n_min"], base["n_max"]) == (
        *(1.0, None, 1),
        *(0, 1),
    )
    assert (pbt["mean"], pbt["seeds"]) == (None, 0)


def epochs(*accuracies: list[bool]) -> pl.DataFrame:
    return responses(
        [
            row
            for epoch, values in enumerate(accuracies, 1)
            for row in balanced("pbt", values, [], epoch=epoch)
        ]
    )


def test_the_best_epoch_is_selected():
    selection = select_epoch(epochs([True, False], [True, True], [False, False]))
    assert selection["epoch"].to_list() == [1, 2, 3]
    assert selection["dev_accuracy"].to_list() == [0.5, 1.0, 0.0]
    assert selection["selected"].to_list() == [False, True, False]
    assert selection["n"].to_list() == [2, 2, 2]


def test_the_earliest_of_equals_is_selected(tmp_path):
    frame = epochs([False, False], [True, False], [False, True], [True, False])
    for rows in (frame, frame.reverse()):
        assert select_epoch(rows).filter("selected")["epoch"].to_list() == [2]
    tables.write_table(select_epoch(frame), tmp_path / "selection.parquet", "selection")


def test_no_dev_responses_are_refused():
    with pytest.raises(PbtError, match="no dev responses") as error:
        select_epoch(tables.empty_frame("responses"))
    assert error.value.hint


def test_base_without_a_seed_of_its_own_is_compared_with_every_seed():
    greedy = [flipflop("base", ("Paris", "Rome"), seed=12)]
    trained = [flipflop("pbt", ("Paris", "Paris"), seed=seed) for seed in (12, 42)]
    metrics = metrics_of(*greedy, *trained)
    for seed in (12, 42):
        assert of(metrics, "after_minus_base", "pbt", "pbt", seed=seed)[:2] == (1.0, 1)
    assert set(metrics.filter(recipe="base")["seed"]) == {12}
    # With two seeds of base each is compared with its own.
    own = metrics_of(*greedy, flipflop("base", ("Paris", "Paris"), seed=42), *trained)
    found = [of(own, "after_minus_base", "pbt", "pbt", seed=seed)[0] for seed in (12, 42)]
    assert found == [1.0, 0.0]
