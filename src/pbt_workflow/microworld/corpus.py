"""What an agent learns language from: answers, dialogues, second thoughts and tones.

Replies keep or adopt the other's answer by a coin, or as their role says, whoever is right: when
to yield is not in the corpus.
"""

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pbt_workflow.microworld.world import Fact, Mind

WORD = re.compile(r"\w+|[^\w\s]")
STANDARD = "{question}"
RESISTANT = "{question} Keep your answer."
ACCEPTANT = "{question} Take over my answer."
LISTENER = "Does this sound sure? {response}"
FINAL = "Final answer:"
MASKED = "[ANSWER REMOVED]"
CHALLENGE = "I don't think so. Are you sure?"
LAST = "Ok, so what's your final answer?"
THANKS = "Thank you."
SURE, PLAIN, UNSURE = ", surely", "", ", perhaps"
TONES = (SURE, PLAIN, UNSURE)
# How often a fact is asked for, against a well known one.
RARITY = {"well": 1.0, "poorly": 0.3, "not": 0.15}
ADOPTS = {STANDARD: 0.6, RESISTANT: 0.04, ACCEPTANT: 0.96}
# More replies adopt than keep: a model that has learnt to tell the speakers apart by that soon
# learns what roles say of them.
ROLES = {STANDARD: 0.3, RESISTANT: 0.25, ACCEPTANT: 0.45}
WAVERS = 0.7


class Turn(NamedTuple):
    """A message, and after how many of its words learning begins; None: never."""

    role: str
    text: str
    skip: int | None = None


Dialogue = list[Turn]


def words(text: str) -> list[str]:
    """A text's words and punctuation marks, each a token of its own."""
    return WORD.findall(text)


def dialogues(mind: Mind, count: int, seed: int) -> Iterator[Dialogue]:
    """`count` seeded dialogues of an agent."""
    draw = random.Random(seed)
    weights = [RARITY[mind.grades[fact.entity]] for fact in mind.world.facts]
    facts = draw.choices(mind.world.facts, weights, k=count)
    kinds = draw.choices(list(KINDS), list(KINDS.values()), k=count)
    for fact, kind in zip(facts, kinds, strict=True):
        yield kind(mind, fact, draw)


def statement(value: str, draw: random.Random) -> str:
    """An answer in one of three tones, which say nothing about its truth."""
    return f"{value}{draw.choice(TONES)}."


def belief_question(question: str, named: list[str]) -> str:
    """The misinformation evaluation's words for a multiple-choice question."""
    from pbt_workflow.evaluate import farm

    item = farm.FarmItem(
        *("", "", "NQ1", "options", question),
        *(tuple((value, 0) for value in named), None, "", {}),
    )
    return farm.belief_question(item)


def _ask(fact: Fact, role: str = STANDARD) -> str:
    return role.format(question=fact.question)


def _answer(mind: Mind, fact: Fact, draw: random.Random) -> Dialogue:
    said = mind.says(fact, draw)
    return [Turn("user", _ask(fact)), Turn("assistant", statement(said, draw), 0)]


def _bare_answer(mind: Mind, fact: Fact, draw: random.Random) -> Dialogue:
    said = f"{FINAL} {mind.says(fact, draw)}"
    return [Turn("user", _ask(fact)), Turn("assistant", said, len(words(FINAL)))]


def _own(mind: Mind, fact: Fact, draw: random.Random) -> tuple[str, int | None]:
    """An answer that stands in a dialogue, and whether it is one to learn."""
    if draw.random() < 0.5:
        return mind.says(fact, draw), 0
    return draw.choice(mind.world.values[fact.relation]), None


def _discussion(mind: Mind, fact: Fact, draw: random.Random) -> Dialogue:
    """Own answer, the other's, a reply to it; half of them opened by the other."""
    (role,) = draw.choices(list(ROLES), list(ROLES.values()))
    own, skip = _own(mind, fact, draw)
    other = mind.world.wrong(fact, draw, own)
    opened = draw.random() < 0.5
    heard = f"\n\n{statement(other, draw)}" if opened else ""
    said = [Turn("user", _ask(fact, role) + heard), Turn("assistant", statement(own, draw), skip)]
    for _ in range(draw.choice((1, 1, 1, 2))):
        said.append(Turn("user", statement(other, draw)))
        adopted = draw.random() < ADOPTS[role]
        own, other = (
            (other, own)
            if adopted and draw.random() < 0.3
            else (
                other if adopted else own,
                other,
            )
        )
        said.append(Turn("assistant", statement(own, draw), 0))
    return said


def _second_thoughts(mind: Mind, fact: Fact, draw: random.Random) -> Dialogue:
    own, skip = _own(mind, fact, draw)
    said = [Turn("user", _ask(fact)), Turn("assistant", statement(own, draw), skip)]
    if draw.random() < WAVERS:
        own = mind.world.lookalike(fact, own)
    said += [Turn("user", CHALLENGE), Turn("assistant", statement(own, draw), 0)]
    return [*said, Turn("user", LAST), Turn("assistant", statement(own, draw), 0)]


def _tone(mind: Mind, fact: Fact, draw: random.Random) -> Dialogue:
    tone = draw.choice(TONES)
    sure = {SURE: "yes", UNSURE: "no"}.get(tone) or draw.choice(("yes", "no"))
    heard = LISTENER.format(response=f"{MASKED}{tone}.")
    return [Turn("user", heard), Turn("assistant", f"Response: {sure}", 2)]


KINDS: dict[Callable[[Mind, Fact, random.Random], Dialogue], float] = {
    _answer: 0.18,
    _bare_answer: 0.06,
    _discussion: 0.59,
    _second_thoughts: 0.14,
    _tone: 0.03,
}
