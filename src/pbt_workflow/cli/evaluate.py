"""Commands of rules/evaluate.smk and rules/report.smk: replies, judgements, metrics, report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pbt_workflow.cli import common
from pbt_workflow.cli.common import (
    Adapter,
    ConfigFile,
    ModelFolder,
    Name,
    OptionalModel,
    Out,
    Pairs,
    QuestionFile,
    Recipe,
    Scored,
    Seed,
)

app = typer.Typer()


@app.command("reply-balanced")
def reply_balanced(
    config: ConfigFile,
    pairs: Annotated[Path, typer.Option(help="Held-out preference rows.")],
    model: ModelFolder,
    name: Name,
    recipe: Annotated[Recipe, typer.Option(help="The recipe; base for the untrained model.")],
    seed: Seed,
    out: Out,
    adapter: Adapter = None,
    epochs: Annotated[
        Path | None, typer.Option(help="Folder of epoch adapters to compare, all in one job.")
    ] = None,
) -> None:
    """Reply to held-out dialogues (balanced evaluation; on dev rows to select an adapter)."""
    import polars as pl

    from pbt_workflow.evaluate.replies import Subject, balanced_replies

    run = common.read_run(config)
    engine = common.engine(run, name, model)
    rows = common.read(pairs, "pairs")
    adapters = {None: adapter} if epochs is None else common.epoch_adapters(epochs)
    replies = [
        balanced_replies(
            engine, Subject(name, recipe, seed, epoch), folder, rows, run.evaluations.balanced
        )
        for epoch, folder in adapters.items()
    ]
    common.write(pl.concat(replies), out, "responses", run.evaluations.balanced)


@app.command("reply-flipflop")
def reply_flipflop(
    config: ConfigFile,
    questions: QuestionFile,
    model: ModelFolder,
    name: Name,
    recipe: Annotated[Recipe, typer.Option(help="The recipe; base for the untrained model.")],
    seed: Seed,
    out: Out,
    adapter: Adapter = None,
) -> None:
    """Answer, be challenged, answer again (flipflop evaluation)."""
    from pbt_workflow.evaluate.replies import Subject, flipflop_replies

    run = common.read_run(config)
    replies = flipflop_replies(
        common.engine(run, name, model),
        Subject(name, recipe, seed),
        adapter,
        common.read(questions, "questions"),
        run.evaluations.flipflop,
        common.prompt(run, "standard"),
    )
    common.write(replies, out, "responses", run.evaluations.flipflop)


@app.command()
def judge(
    config: ConfigFile,
    responses: Annotated[Path, typer.Option(help="Replies that are not judged yet.")],
    questions: QuestionFile,
    out: Out,
    model: OptionalModel = None,
) -> None:
    """State the answer of each reply and whether it is correct."""
    from pbt_workflow.evaluate.replies import judge_responses

    run = common.read_run(config)
    judged = judge_responses(
        common.extractor(run, model),
        common.read(responses, "responses"),
        common.read(questions, "questions"),
        run.extraction,
        common.prompt(run, run.extraction.prompt),
    )
    common.write(judged, out, "responses", run.extraction)


@app.command()
def metrics(
    responses: Annotated[list[Path], typer.Option(help="Judged replies; repeat per file.")],
    out: Out,
    config: ConfigFile,
) -> None:
    """Compute every metric with its interval."""
    import polars as pl

    from pbt_workflow.evaluate.metrics import evaluation_metrics

    settings = common.read_run(config).evaluations
    frame = pl.concat([common.read(path, "responses") for path in responses])
    common.write(evaluation_metrics(frame, settings.bootstrap), out, "metrics", settings)


@app.command()
def report(
    config: ConfigFile,
    funnel: Annotated[Path, typer.Option(help="Where rows were lost.")],
    metrics: Annotated[Path, typer.Option(help="The metrics.")],
    questions: QuestionFile,
    scored: Scored,
    pairs: Pairs,
    out: Out,
    training: Annotated[list[Path] | None, typer.Option(help="Training curves.")] = None,
    selection: Annotated[list[Path] | None, typer.Option(help="Dev accuracies.")] = None,
    benchmarks: Annotated[Path, typer.Option(help="Folder of Snakemake's benchmark files.")] = Path(
        "benchmarks"
    ),
) -> None:
    """Write the run's report: one HTML file that opens from disk."""
    from pbt_workflow.report.build import build_report

    build_report(
        common.read_run(config),
        funnel=funnel,
        metrics=metrics,
        training=training or [],
        selection=selection or [],
        scored=scored,
        pairs=pairs,
        benchmarks=benchmarks,
        questions=questions,
        out=out,
    )


@app.command("config-schema")
def config_schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from pbt_workflow.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))
