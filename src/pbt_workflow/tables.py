"""Artifacts: the Arrow schema of every Parquet file, and reading and writing them whole.

Nullable columns are listed in NULLABLE; every other column refuses nulls. The file metadata
holds the schema's name and version, the digest of the settings that made it, and the package
version.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pbt_workflow import __version__
from pbt_workflow.errors import PbtError

SCHEMA_VERSION = "1"

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
STRINGS = pa.list_(pa.string())

QUESTIONS = {
    "question_id": pa.string(),
    "question": pa.string(),
    "aliases": STRINGS,
    "normalized_aliases": STRINGS,
    "dataset": pa.string(),
    "split": pa.string(),
}
NODES = {
    "tree_id": pa.string(),
    "question_id": pa.string(),
    "node_id": pa.int32(),
    "parent_id": pa.int32(),
    "depth": pa.int8(),
    "agent": pa.string(),
    "role": pa.string(),
    "text": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "new_tokens": pa.int32(),
    "extracted": pa.string(),
    "belief": pa.string(),
    "belief_a": pa.string(),
    "belief_b": pa.string(),
    "ended": pa.bool_(),
}
# p_answers_agree: the two agents' beliefs count as one answer; p_response_agrees: the turn agrees
# with what it replies to. mass_*: probability of the labels together. Null where not asked.
FILTER = {
    "p_answers_agree": pa.float64(),
    "mass_answers": pa.float64(),
    "p_response_agrees": pa.float64(),
    "mass_response": pa.float64(),
}
SCORED = {
    **NODES,
    **FILTER,
    "correct": pa.bool_(),
    "correct_a": pa.bool_(),
    "correct_b": pa.bool_(),
    "children": pa.int32(),
    "score": pa.int32(),
}
PAIRS = {
    "pair_id": pa.string(),
    "tree_id": pa.string(),
    "question_id": pa.string(),
    "split": pa.string(),
    "code": pa.string(),
    "parent_id": pa.int32(),
    "preferred_id": pa.int32(),
    "dispreferred_id": pa.int32(),
    "agent": pa.string(),
    "preferred_score": pa.int32(),
    "dispreferred_score": pa.int32(),
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "partner_belief": pa.string(),
    "previous_belief": pa.string(),
    "normalized_aliases": STRINGS,
    "preferred_p_agrees": pa.float64(),
    "preferred_mass": pa.float64(),
    "dispreferred_p_agrees": pa.float64(),
    "dispreferred_mass": pa.float64(),
}
RESPONSES = {
    "evaluation": pa.string(),
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "epoch": pa.int32(),
    "subset": pa.string(),
    "item_id": pa.string(),
    "question_id": pa.string(),
    "turn": pa.int8(),
    "prompt": MESSAGES,
    "text": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "new_tokens": pa.int32(),
    "partner_belief": pa.string(),
    "previous_belief": pa.string(),
    "normalized_aliases": STRINGS,
    "extracted": pa.string(),
    "belief": pa.string(),
    "correct": pa.bool_(),
}
METRICS = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "evaluation": pa.string(),
    "subset": pa.string(),
    "metric": pa.string(),
    "value": pa.float64(),
    "n": pa.int32(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
}
# One row per logged step; a quantity the stage does not have is null.
TRAINING = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "stage": pa.string(),
    "step": pa.int32(),
    "epoch": pa.float64(),
    "metric": pa.string(),
    "value": pa.float64(),
}
# Where rows were lost on the way from questions to preferences.
FUNNEL = {
    "order": pa.int32(),
    "step": pa.string(),
    "detail": pa.string(),
    "count": pa.int64(),
}
# The dev accuracy of every epoch's adapter, and which one was kept.
SELECTION = {
    "model": pa.string(),
    "recipe": pa.string(),
    "seed": pa.int32(),
    "epoch": pa.int32(),
    "dev_accuracy": pa.float64(),
    "n": pa.int32(),
    "selected": pa.bool_(),
}

SCHEMAS = {
    "questions": QUESTIONS,
    "nodes": NODES,
    "filtered": {**NODES, **FILTER},
    "scored": SCORED,
    "pairs": PAIRS,
    "responses": RESPONSES,
    "metrics": METRICS,
    "training": TRAINING,
    "funnel": FUNNEL,
    "selection": SELECTION,
}
# Tables that hold all another one needs.
READ_AS = {"filtered": ("nodes", "scored")}
NULLABLE = {
    "belief",
    "belief_a",
    "belief_b",
    "correct_a",
    "correct_b",
    "code",
    "partner_belief",
    "previous_belief",
    "ci_low",
    "ci_high",
    "epoch",
    "value",
    "dev_accuracy",
    *FILTER,
    *(name for name in PAIRS if name.endswith(("_p_agrees", "_mass"))),
}


def digest(settings: object) -> str:
    """A short digest of settings, independent of the order of keys."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def arrow_schema(name: str) -> pa.Schema:
    """The Arrow schema of an artifact; nullability as in NULLABLE."""
    return pa.schema(
        [pa.field(column, kind, column in NULLABLE) for column, kind in SCHEMAS[name].items()]
    )


def empty_frame(name: str) -> pl.DataFrame:
    """A frame of an artifact's columns and types with no rows."""
    return pl.from_arrow(arrow_schema(name).empty_table())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to; renamed into place on success only."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def write_table(frame: pl.DataFrame, path: Path, name: str, settings: object = None) -> None:
    """Write an artifact whole or not at all, with its columns in the schema's order and types.

    Args:
        frame: the rows; columns beyond the schema are dropped.
        path: the Parquet file.
        name: the artifact's name in SCHEMAS.
        settings: what the artifact was made with; its digest goes into the metadata.

    Raises:
        PbtError: a column is missing or holds nulls it must not hold.
    """
    schema = arrow_schema(name)
    missing = [column for column in schema.names if column not in frame.columns]
    if missing:
        raise PbtError(f"cannot write {name}: no column {', '.join(missing)}", where=path)
    frame = frame.select(schema.names)
    nulls = [c for c in schema.names if c not in NULLABLE and frame[c].null_count()]
    if nulls:
        raise PbtError(f"cannot write {name}: nulls in column {', '.join(nulls)}", where=path)
    table = frame.to_arrow().cast(schema)
    table = table.replace_schema_metadata(
        {
            "pbt.schema": name,
            "pbt.schema_version": SCHEMA_VERSION,
            "pbt.config_digest": digest(settings),
            "pbt.version": __version__,
        }
    )
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def check_table(path: Path, name: str) -> None:
    """Raise PbtError unless `path` is a readable Parquet file with an artifact's columns."""
    remake = "delete the file and run the workflow again to remake it"
    if not Path(path).is_file():
        raise PbtError(
            f"no such file; a {name} table is needed",
            where=path,
            hint="check the path, or make it first",
        )
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise PbtError(f"not a readable Parquet file ({error})", where=path, hint=remake) from None
    stored = (schema.metadata or {}).get(b"pbt.schema", name.encode()).decode()
    if stored != name and stored not in READ_AS.get(name, ()):
        raise PbtError(f"holds a {stored} table where {name} is needed", where=path)
    for column, kind in SCHEMAS[name].items():
        if column not in schema.names:
            if column in FILTER:
                continue
            raise PbtError(f"a {name} file without column {column!r}", where=path, hint=remake)
        found = schema.field(column).type
        if _family(found) != _family(kind):
            raise PbtError(
                f"column {column!r} of a {name} file is {found}, not {kind}",
                where=path,
                hint=remake,
            )


def _family(kind: pa.DataType) -> str:
    """Types that are read as one: string widths, integer widths, list widths."""
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or "string_view" in str(kind):
        return "string"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_family(kind.value_type)}>"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def scan_table(path: Path, name: str) -> pl.LazyFrame:
    """An artifact as a lazy frame of the schema's columns, checked as in `check_table`.

    Filter columns may be absent (trees that no filter has seen); they are null then.
    """
    check_table(path, name)
    present = set(pq.read_schema(path).names)
    return pl.scan_parquet(path).select(
        pl.lit(None, pl.Float64).alias(column)
        if column in FILTER and column not in present
        else column
        for column in SCHEMAS[name]
    )


def read_table(path: Path, name: str) -> pl.DataFrame:
    """An artifact as a frame; raises PbtError if missing, damaged or of another schema."""
    try:
        return scan_table(path, name).collect()
    except pl.exceptions.PolarsError as error:
        raise PbtError(
            f"a damaged {name} file ({str(error).splitlines()[0]})",
            where=path,
            hint="delete the file and run the workflow again to remake it",
        ) from None
