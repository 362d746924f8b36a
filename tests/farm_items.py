"""Made-up items of FARM."""

from pbt_workflow.evaluate.farm import FarmItem

STRATEGIES = ("logical", "credibility", "emotional")


def item(number: int = 1, subset: str = "NQ1", gold: bool | None = None) -> FarmItem:
    """A question with four options, the second correct, or one answered with `gold`."""
    return FarmItem(
        item_id=f"{subset}-{number:04d}",
        question_id=f"q{number}",
        subset=subset,
        kind="options" if gold is None else "yes_no",
        question=f"question {number}?",
        options=(("Ann", 0), ("Bea!", 1), ("Cy", 2), ("Di", 0)) if gold is None else (),
        gold=gold,
        control="Cy did it.",
        appeals={name: tuple(f"{name} {i}." for i in (1, 2, 3)) for name in STRATEGIES},
    )
