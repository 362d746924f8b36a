"""Replies of one model, with or without an adapter, to the questions of an evaluation."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pbt_workflow import tables
from pbt_workflow.answers import is_correct, parse_extraction, resolve_belief
from pbt_workflow.chat import Message, fill_prompt
from pbt_workflow.config import Balanced, Extraction, Flipflop
from pbt_workflow.engines import ChatRequest, Decoding, Engine, Reply
from pbt_workflow.growth import extract_replies, to_decoding
from pbt_workflow.seeds import derive_seed
from pbt_workflow.trees import finish_text


@dataclass(frozen=True)
class Subject:
    """Who is evaluated: model name, recipe (`base` is untrained), seed, and epoch on dev."""

    model: str
    recipe: str
    seed: int
    epoch: int | None = None


def balanced_replies(
    engine: Engine, subject: Subject, adapter: Path | None, pairs: pl.DataFrame, settings: Balanced
) -> pl.DataFrame:
    """One sampled reply to each pair's prompt (Table 3; schema `responses`).

    Args:
        engine: the model evaluated.
        subject: what it is called in the rows.
        adapter: its adapter's folder; None for the base model.
        pairs: held-out pairs (schema `pairs`); the subset is their code.
        settings: decoding.
    """
    rows = pairs.to_dicts()
    requests = [
        ChatRequest(row["prompt"], derive_seed("balanced", subject.seed, row["pair_id"]))
        for row in rows
    ]
    replies = engine.chat(requests, to_decoding(settings.decoding), adapter)
    return _responses(
        {
            **_row(subject, "balanced", row["code"], row["pair_id"], row, 0),
            "partner_belief": row["partner_belief"],
            "previous_belief": row["previous_belief"],
            **_reply(row["prompt"], reply),
        }
        for row, reply in zip(rows, replies, strict=True)
    )


def flipflop_replies(
    engine: Engine,
    subject: Subject,
    adapter: Path | None,
    questions: pl.DataFrame,
    settings: Flipflop,
    standard_prompt: str,
) -> pl.DataFrame:
    """Three greedy replies to each question: answer, challenge, final answer (Tables 2 and 6).

    Args:
        engine: the model evaluated.
        subject: what it is called in the rows.
        adapter: its adapter's folder; None for the base model.
        questions: schema `questions`.
        settings: lengths, and the texts of the second and third user turns.
        standard_prompt: the test-time prompt with `{question}`.

    Returns:
        Three rows per question, turns 0, 1 and 2.
    """
    asked = questions.sort("question_id").to_dicts()
    chats: list[list[Message]] = [[] for _ in asked]
    decoding = Decoding(0.0, 1.0, settings.max_new_tokens, settings.min_new_tokens)
    rows: list[dict] = []
    for turn in range(3):
        for chat, question in zip(chats, asked, strict=True):
            opening = fill_prompt(standard_prompt, question=question["question"])
            content = (opening, settings.challenge, settings.final)[turn]
            chat.append(Message(role="user", content=content))
        replies = engine.chat([ChatRequest(list(chat), 0) for chat in chats], decoding, adapter)
        for chat, question, reply in zip(chats, asked, replies, strict=True):
            row = _reply(list(chat), reply)
            rows.append(
                {**_row(subject, "flipflop", "all", question["question_id"], question, turn), **row}
            )
            chat.append(Message(role="assistant", content=row["text"]))
    return _responses(rows)


def judge_responses(
    engine: Engine | None,
    responses: pl.DataFrame,
    questions: pl.DataFrame,
    extraction: Extraction,
    prompt: str,
) -> pl.DataFrame:
    """`responses` with the answer each states, its belief, and whether that is correct.

    In the balanced evaluation `Agree` and `Disagree` stand for the partner's and the model's own
    belief in the dialogue; in flipflop they state no answer (strict reading of the protocol).

    Args:
        engine: the extractor; None if answers are found by rule.
        responses: schema `responses`, not judged yet.
        questions: the questions they answer.
        extraction: how answers are found.
        prompt: the extraction prompt's text.
    """
    texts = dict(questions.select("question_id", "question").iter_rows())
    raw = extract_replies(
        engine,
        [texts[question_id] for question_id in responses["question_id"]],
        responses["text"].to_list(),
        extraction,
        prompt,
    )
    rows = responses.to_dicts()
    for row, reply in zip(rows, raw, strict=True):
        row["extracted"] = parse_extraction(reply)
        row["belief"] = resolve_belief(
            row["extracted"], row["previous_belief"], row["partner_belief"]
        )
        row["correct"] = is_correct(row["belief"], row["normalized_aliases"])
    return _responses(rows)


def _row(
    subject: Subject, evaluation: str, subset: str, item_id: str, source: dict, turn: int
) -> dict:
    return {
        "evaluation": evaluation,
        "model": subject.model,
        "recipe": subject.recipe,
        "seed": subject.seed,
        "epoch": subject.epoch,
        "subset": subset,
        "item_id": item_id,
        "question_id": source["question_id"],
        "turn": turn,
        "normalized_aliases": source["normalized_aliases"],
        "extracted": "",
        "correct": False,
    }


def _reply(prompt: list[Message], reply: Reply) -> dict:
    return {
        "prompt": prompt,
        "text": finish_text(reply.text, reply.finish_reason),
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "new_tokens": reply.new_tokens,
    }


def _responses(rows) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=tables.empty_frame("responses").schema)
