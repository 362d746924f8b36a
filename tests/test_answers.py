"""Normalisation, what an extractor's reply says, beliefs, and when two answers are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbt_workflow.answers import (
    is_correct,
    normalize_answer,
    parse_extraction,
    resolve_belief,
    same_answer,
)

PARIS = {"paris", "city of light"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles", "beatles"),
        ("  A   Tale of_Two Cities ", "tale of two cities"),
        ("an Apple a Day", "apple day"),
        ("O'Connor-Smith, Jr.", "o connor smith jr"),
        ("‘Rock’ ´n` “Roll”", "rock n roll"),
        ("U.S.A.", "u s"),
        ("Theatre", "theatre"),
        ("1,000", "1 000"),
        ("São Paulo", "são paulo"),
        ("The", ""),
        ("?!", ""),
        ("", ""),
    ],
)
def test_normalised_answers(text, expected):
    assert normalize_answer(text) == expected


@given(st.text(max_size=30))
def test_normalising_leaves_single_spaces_and_no_punctuation(text):
    normal = normalize_answer(text)
    assert normal == " ".join(normal.split())
    assert not set(normal) & set("_.,'\"!?()[]‘’")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Paris", "Paris"),
        (" Paris.\n", "Paris"),
        ('"Paris"', "Paris"),
        ('"Paris."', "Paris"),
        ('"Paris".', "Paris"),
        ("“Paris”", "Paris"),
        ("‘Paris’.", "Paris"),
        ("**Paris**", "Paris"),
        ("Paris (France)", "Paris"),
        ("Paris (France).", "Paris"),
        ("Paris. (France)", "Paris"),
        ('"Paris (France)"', "Paris"),
        ('"Paris" (France)', "Paris"),
        ("Paris (the capital of", "Paris"),
        ("John (Jack) Smith", "John (Jack) Smith"),
        ("(Paris)", "Paris"),
        ("Paris\nQuestion: Who?", "Paris"),
        ("\n\nParis", "Paris"),
        ("O'Connor", "O'Connor"),
        ("", ""),
        ("  \n ", ""),
        ('"."', ""),
    ],
)
def test_an_extractors_reply(reply, expected):
    assert parse_extraction(reply) == expected


@pytest.mark.parametrize("token", ["Agree", "Disagree", "NONE"])
@pytest.mark.parametrize("form", ["{}", "{}.", '"{}"', "{} (see above)", "**{}**\nBecause", "({})"])
def test_special_tokens_in_any_case(token, form):
    for spelling in (token, token.lower(), token.upper(), token.title()):
        assert parse_extraction(form.format(spelling)) == token


@pytest.mark.parametrize("reply", ["Agreement", "I disagree", "None of them", "Agree with Paris"])
def test_answers_that_only_contain_a_special_token_are_answers(reply):
    assert parse_extraction(reply) == reply


@given(st.text(st.sampled_from("aB .\"'()*\n“”\u00a0"), max_size=20))
def test_parsing_twice_changes_nothing(reply):
    once = parse_extraction(reply)
    assert "\n" not in once
    assert parse_extraction(once) == once


@pytest.mark.parametrize(
    ("extracted", "own", "other", "belief"),
    [
        ("Paris", "Rome", "Oslo", "Paris"),
        ("Agree", "Rome", "Oslo", "Oslo"),
        ("Agree", "Rome", None, None),
        ("Disagree", "Rome", "Oslo", "Rome"),
        ("Disagree", None, "Oslo", None),
        ("NONE", "Rome", "Oslo", None),
        ("", "Rome", "Oslo", None),
        ("the", "Rome", "Oslo", None),
    ],
)
def test_a_belief_after_a_turn(extracted, own, other, belief):
    assert resolve_belief(extracted, own, other) == belief


def test_agreement_and_disagreement_resolve_along_a_chain():
    a = resolve_belief("Rome", None, None)
    b = resolve_belief("Agree", None, a)
    a = resolve_belief("Oslo", a, b)
    b = resolve_belief("Disagree", b, a)
    assert (a, b) == ("Oslo", "Rome")
    a = resolve_belief("Agree", a, b)
    b = resolve_belief("Agree", b, a)
    assert (a, b) == ("Rome", "Rome")


def test_correct_is_a_normalised_alias():
    assert is_correct("The City of Light!", PARIS)
    assert not is_correct("Rome", PARIS)
    assert not is_correct(None, PARIS)
    assert not is_correct(None, {""})


def test_the_same_answer():
    assert same_answer("the Rome", "rome.", PARIS)
    assert same_answer("Paris", "City of Light", PARIS)
    assert not same_answer("Paris", "Rome", PARIS)
    assert not same_answer("Rome", "Oslo", PARIS)


@pytest.mark.parametrize("other", [None, "Paris", "Rome"])
def test_null_agrees_with_nothing(other):
    assert not same_answer(None, other, PARIS)
    assert not same_answer(other, None, PARIS)
