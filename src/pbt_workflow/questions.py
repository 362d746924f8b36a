"""Questions from local files or the hub, in the shape of TriviaQA or in this project's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pbt_workflow import tables
from pbt_workflow.answers import normalize_answer
from pbt_workflow.config import QuestionSource
from pbt_workflow.errors import PbtError
from pbt_workflow.seeds import derive_seed, unit_interval

SHAPE = 'a row is {"question": ..., "answer": {"aliases": [...], "normalized_aliases": [...]}}'


def load_questions(source: QuestionSource, path: Path) -> pl.DataFrame:
    """The questions of a source, selected and sampled (schema `questions`).

    Args:
        source: dataset name, split, sample size and seed of the config.
        path: the JSONL or Parquet file.

    Returns:
        Rows by question_id; a sample is chosen by hash, so it does not depend on file order.

    Raises:
        PbtError: unreadable rows, a question without an answer, duplicates, or nothing left.
    """
    rows = [
        row
        for row in read_rows(path)
        if source.split in (None, row["split"])
        and (source.relations is None or row["relation"] in source.relations)
    ]
    if not rows:
        raise PbtError(
            f"no questions with split {source.split!r} and the relations asked for",
            where=path,
            hint="check `split` and `relations` of the question source, or set them to null",
        )
    seen: set[str] = set()
    for row in rows:
        if row["question_id"] in seen:
            raise PbtError(
                f"question_id {row['question_id']!r} occurs twice",
                where=path,
                hint="give every question its own id, or leave the ids out",
            )
        seen.add(row["question_id"])
    if source.limit is not None:
        rows.sort(key=lambda row: unit_interval(source.seed, row["question_id"]))
        rows = rows[: source.limit]
    frame = pl.DataFrame(
        [{**row, "dataset": source.dataset} for row in rows],
        strict=False,
        schema=tables.empty_frame("questions").schema,
    )
    return frame.sort("question_id")


def read_rows(path: Path) -> list[dict]:
    """Every question of a JSONL or Parquet file: question_id, question, aliases, split, ...

    Raises:
        PbtError: with the line of the first row that is not a question with an answer.
    """
    path = Path(path)
    if not path.is_file():
        raise PbtError("no such question file", where=path, hint="check the path in the config")
    if path.suffix == ".parquet":
        try:
            raw = pl.read_parquet(path).to_dicts()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise PbtError(f"not a readable Parquet file ({error})", where=path) from None
        rows = [_question(row, f"{path}, row {index}") for index, row in enumerate(raw, 1)]
    else:
        rows = [_question(row, where) for row, where in _json_lines(path)]
    if not rows:
        raise PbtError("the question file is empty", where=path, hint=SHAPE)
    return rows


def _json_lines(path: Path) -> Iterator[tuple[object, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PbtError(f"not UTF-8 text (at byte {error.start})", where=path) from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield json.loads(line), where
        except json.JSONDecodeError as error:
            raise PbtError(
                f"not valid JSON ({error.msg} at column {error.colno})",
                where=where,
                hint=f"one JSON object a line; {SHAPE}",
            ) from None


def _question(row: object, where: str) -> dict:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise PbtError("a row without a `question`", where=where, hint=SHAPE)
    question = row["question"].strip()
    answer = row.get("answer")
    if answer is None:
        # The shape of the `questions` artifact.
        answer = {name: row.get(name) for name in ("aliases", "normalized_aliases")}
    elif not isinstance(answer, dict):
        answer = {"aliases": answer}
    names = answer.get("aliases") or []
    stated = [answer.get("value"), *([names] if isinstance(names, str) else names)]
    aliases = list(dict.fromkeys(a for a in stated if isinstance(a, str) and a.strip()))
    given = [a for a in answer.get("normalized_aliases") or [] if isinstance(a, str)]
    normalized = list(dict.fromkeys([*given, *map(normalize_answer, aliases)]))
    normalized = [alias for alias in normalized if alias]
    if not question or not aliases or not normalized:
        missing = "an empty question" if not question else f"no answer to {question!r}"
        raise PbtError(missing, where=where, hint=SHAPE)
    default_id = f"q{derive_seed(question):016x}"
    return {
        "question_id": str(row.get("question_id") or row.get("id") or default_id),
        "question": question,
        "aliases": aliases,
        "normalized_aliases": normalized,
        "split": str(row.get("split") or "all"),
        "relation": row.get("relation"),
    }


def download_questions(source: QuestionSource, out: Path) -> None:
    """Fetch a question file of a hub dataset at its pinned revision.

    Raises:
        PbtError: the hub or the file cannot be reached.
    """
    import shutil

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        file = hf_hub_download(
            source.repo, source.repo_file, repo_type="dataset", revision=source.revision
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise PbtError(
            f"cannot download {source.repo_file} of {source.repo} ({str(error).splitlines()[0]})",
            where=f"dataset {source.repo} at revision {source.revision}",
            hint="check the network and the names, or name a local file with `path`",
        ) from None
    with tables.atomic_path(out) as partial:
        shutil.copyfile(file, partial)
