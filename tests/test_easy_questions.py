"""The easy factual question set in data/easy/questions.jsonl."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import Any

import pytest
from checkouts import ROOT

from pbt_workflow.answers import normalize_answer

PATH = ROOT / "data" / "easy" / "questions.jsonl"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()
]
BY_QUESTION = {row["question"]: row for row in ROWS}


def test_size_and_relations() -> None:
    assert len(ROWS) >= 1500
    counts = Counter(row["relation"] for row in ROWS)
    assert sum(count >= 20 for count in counts.values()) >= 12


def test_ids_and_questions_are_unique_and_sorted() -> None:
    ids = [row["question_id"] for row in ROWS]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"easy-[a-z0-9-]+", question_id) for question_id in ids)
    assert len({normalize_answer(row["question"]) for row in ROWS}) == len(ROWS)


def test_schema() -> None:
    keys = {"question_id", "question", "answer", "relation", "fact", "split"}
    for row in ROWS:
        assert set(row) == keys
        assert set(row["answer"]) == {"value", "aliases", "normalized_aliases"}
        assert row["question"].endswith("?")
        assert row["split"] in {"train", "test"}
        assert re.fullmatch(r"[a-z0-9-]+:\S+", row["fact"])


def test_aliases() -> None:
    for row in ROWS:
        answer = row["answer"]
        assert answer["aliases"] and answer["value"] in answer["aliases"]
        assert set(answer["normalized_aliases"]) == {normalize_answer(a) for a in answer["aliases"]}
        assert "" not in answer["normalized_aliases"]
        assert normalize_answer(answer["value"]) in answer["normalized_aliases"]


def test_answers_do_not_stand_in_the_question() -> None:
    for row in ROWS:
        question = f" {normalize_answer(row['question'])} "
        for alias in row["answer"]["normalized_aliases"]:
            assert f" {alias} " not in question, row["question"]


def test_split() -> None:
    splits_of_fact: dict[str, set[str]] = defaultdict(set)
    splits_of_relation: dict[str, set[str]] = defaultdict(set)
    for row in ROWS:
        splits_of_fact[row["fact"]].add(row["split"])
        splits_of_relation[row["relation"]].add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of_fact.values())
    assert all(splits == {"train", "test"} for splits in splits_of_relation.values())
    assert 0.2 < sum(row["split"] == "test" for row in ROWS) / len(ROWS) < 0.3


def test_both_directions_share_a_fact() -> None:
    pairs = [
        ("What is the capital of France?", "Which country has Paris as its capital?"),
        ("What is the chemical symbol for gold?", "Which chemical element has the symbol Au?"),
        ('What is the opposite of "hot"?', 'What is the opposite of "cold"?'),
        ("Which day comes right after Monday?", "Which day comes right before Tuesday?"),
        ("How do you write 9 in Roman numerals?", "Which number is IX in Roman numerals?"),
    ]
    for first, second in pairs:
        assert BY_QUESTION[first]["fact"] == BY_QUESTION[second]["fact"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of Japan?", "Tokyo"),
        ("Which country has London as its capital?", "the UK"),
        ("What is the chemical symbol for iron?", "Fe"),
        ("What is the atomic number of carbon?", "six"),
        ("What is the currency of Japan?", "yen"),
        ("On which continent is Kenya?", "Africa"),
        ("What is the official or main language of Brazil?", "Portuguese"),
        ('Who wrote "Hamlet"?', "Shakespeare"),
        ("Which artist made the Mona Lisa?", "Leonardo da Vinci"),
        ("Who composed Swan Lake?", "Tchaikovsky"),
        ("What is the capital of the US state of Texas?", "Austin"),
        ("In which country is the city of Kraków?", "Poland"),
        ("Which country is home to the Eiffel Tower?", "France"),
        ("Who is the Greek god of the sea?", "Poseidon"),
        ('What is the plural of the noun "mouse"?', "mice"),
        ("How many sides does a hexagon have?", "6 sides"),
        ("Which planet is called the Red Planet?", "Mars"),
        ('What is the Spanish word for "yes"?', "si"),
    ],
)
def test_spot_checks(question: str, answer: str) -> None:
    aliases = BY_QUESTION[question]["answer"]["normalized_aliases"]
    assert normalize_answer(answer) in aliases


def test_wrong_answers_are_no_aliases() -> None:
    for question, answer in [
        ("What is the capital of Australia?", "Sydney"),
        ("Which country is home to Loch Ness?", "England"),
        ('What is the opposite of "big"?', "large"),
    ]:
        aliases = BY_QUESTION[question]["answer"]["normalized_aliases"]
        assert normalize_answer(answer) not in aliases
