"""`pbt`: one command per step of the workflow. Every rule is one call; all run by hand as well.

Commands that run a model read their settings from the run's configuration (`--config`, normally
results/RUN/config.yaml); what they read and write is named by options.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pbt_workflow import __version__
from pbt_workflow.errors import PbtError

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Recipe = Literal["base", "accept", "resist", "pbt"]
ConfigFile = Annotated[Path, typer.Option("--config", help="The run's configuration (YAML).")]
Out = Annotated[Path, typer.Option(help="Where to write; appears whole or not at all.")]
Nodes = Annotated[Path, typer.Option(help="Turns of a shard's trees (Parquet).")]
QuestionFile = Annotated[Path, typer.Option(help="The questions (Parquet).")]
ModelFolder = Annotated[Path, typer.Option("--model", help="The model's folder.")]
OptionalModel = Annotated[
    Path | None, typer.Option("--model", help="The extractor's folder; none for short_answer.")
]
Pairs = Annotated[list[Path], typer.Option(help="Preference pairs (Parquet); repeat per shard.")]
Scored = Annotated[list[Path], typer.Option(help="Scored trees (Parquet); repeat per shard.")]
Name = Annotated[str, typer.Option(help="The model's name in the configuration.")]
Seed = Annotated[int, typer.Option(help="The seed.")]
Adapter = Annotated[Path | None, typer.Option(help="The adapter's folder; none for base.")]


def main() -> None:
    """Run a command; anything a user can mend ends in one message and exit status 1."""
    try:
        app()
    except PbtError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _version(value: bool) -> None:
    if value:
        print(f"pbt-workflow {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("fetch-model")
def fetch_model(config: ConfigFile, name: Name, out: Out) -> None:
    """Make a model's folder: download, convert or build it."""
    from pbt_workflow import models

    models.fetch_model(_config(config).model(name).source, out)


@app.command("fetch-questions")
def fetch_questions(
    config: ConfigFile,
    which: Annotated[Literal["trees", "evaluation"], typer.Option(help="Which question source.")],
    out: Out,
) -> None:
    """Download a question file from the hub."""
    from pbt_workflow.questions import download_questions

    download_questions(getattr(_config(config).questions, which), out)


@app.command()
def questions(
    config: ConfigFile,
    which: Annotated[Literal["trees", "evaluation"], typer.Option(help="Which question source.")],
    file: Annotated[Path, typer.Option(help="JSONL or Parquet file with questions.")],
    out: Out,
) -> None:
    """Read, check, select and sample questions."""
    from pbt_workflow.questions import load_questions

    source = getattr(_config(config).questions, which)
    _write(load_questions(source, file), out, "questions", source)


@app.command()
def generate(
    config: ConfigFile,
    questions: QuestionFile,
    model: ModelFolder,
    shard: Annotated[int, typer.Option(help="Number of the shard, from 0.")],
    turn: Annotated[int, typer.Option(help="The depth to grow, from 0.")],
    out: Out,
    nodes: Annotated[
        Path | None, typer.Option(help="The turns before, with answers; none for turn 0.")
    ] = None,
) -> None:
    """Grow the trees of a shard by one turn."""
    from pbt_workflow import growth, trees

    run = _config(config)
    agent = getattr(run.agents, trees.speaker(turn))
    roles = {role for depth in run.trees.depths for role in depth.roles}
    grown = growth.generate_turn(
        _engine(run, agent, model),
        trees.shard_of(_read(questions, "questions"), shard, run.trees.shards),
        None if nodes is None else _read(nodes, "nodes"),
        turn,
        run.trees,
        {role: _prompt(run, role) for role in roles},
    )
    _write(grown, out, "nodes", run.trees)


@app.command()
def extract(
    config: ConfigFile,
    nodes: Nodes,
    questions: QuestionFile,
    turn: Annotated[int, typer.Option(help="The depth whose turns have no answers yet.")],
    out: Out,
    model: OptionalModel = None,
) -> None:
    """State the answer of each turn of one depth, and end branches that agree."""
    from pbt_workflow import growth

    run = _config(config)
    grown = growth.extract_turn(
        _extractor(run, model),
        _read(questions, "questions"),
        _read(nodes, "nodes"),
        turn,
        run.trees,
        run.extraction,
        _prompt(run, run.extraction.prompt),
    )
    _write(grown, out, "nodes", run.extraction)


@app.command("filter")
def filter_(
    config: ConfigFile, nodes: Nodes, questions: QuestionFile, model: ModelFolder, out: Out
) -> None:
    """Ask the filter model whether answers and turns really disagree."""
    from pbt_workflow import disagreement

    run = _config(config)
    filtered = disagreement.filter_trees(
        _engine(run, run.filter.model, model),
        _read(nodes, "nodes"),
        _read(questions, "questions"),
        run.filter,
        run.pairs,
        {
            name: _prompt(run, name)
            for name in (run.filter.answers_prompt, run.filter.responses_prompt)
        },
    )
    low = disagreement.low_mass_share(filtered)
    if low:
        print(
            f"warning: in {low:.0%} of the filter's questions the labels hold less than "
            f"{disagreement.LOW_MASS:.0%} of the probability: the model hardly answers with them",
            file=sys.stderr,
        )
    _write(filtered, out, "filtered", run.filter)


@app.command()
def score(
    nodes: Nodes,
    questions: QuestionFile,
    out: Out,
    score: Annotated[
        Literal["own", "both"],
        typer.Option(help="own: the speaker's correctness (paper); both: both agents' beliefs."),
    ] = "own",
) -> None:
    """Score every turn by the correct answers it leads to. No model is needed."""
    from pbt_workflow.scores import score_trees

    frame = _read(nodes, "filtered")
    scored = _about(nodes, lambda: score_trees(frame, _read(questions, "questions"), score))
    _write(scored, out, "scored", {"score": score})


@app.command()
def pair(
    scored: Annotated[Path, typer.Option(help="Scored trees (Parquet).")],
    questions: QuestionFile,
    out: Out,
    score: Annotated[Literal["own", "both"], typer.Option(help="What the scores hold.")] = "own",
    min_relative_margin: Annotated[
        float, typer.Option(help="A pair needs (high - low) / high above this.")
    ] = 0.5,
    require_partner: Annotated[
        bool, typer.Option(help="The partner must hold the other kind of answer (strict).")
    ] = True,
    require_equal_children: Annotated[
        bool, typer.Option(help="Siblings must have equally many children.")
    ] = True,
    aggregate: Annotated[
        Literal["sum", "mean"], typer.Option(help="Compare summed or mean scores.")
    ] = "sum",
    tie_break: Annotated[
        Literal["none", "correctness"], typer.Option(help="What decides between equal scores.")
    ] = "none",
    split_seed: Annotated[int, typer.Option(help="Seed of the split by question.")] = 42,
    standard_prompt: Annotated[
        Path | None, typer.Option(help="File with the standard prompt; none: the paper's.")
    ] = None,
) -> None:
    """Make preference pairs of sibling turns. No model is needed."""
    from pbt_workflow import config
    from pbt_workflow.chat import load_prompt
    from pbt_workflow.pairs import make_pairs

    settings = config.Pairs(
        score=score,
        aggregate=aggregate,
        tie_break=tie_break,
        min_relative_margin=min_relative_margin,
        require_equal_children=require_equal_children,
        require_partner=require_partner,
        split_seed=split_seed,
    )
    overrides = None if standard_prompt is None else {"standard": str(standard_prompt)}
    frame = _read(scored, "scored")
    pairs = _about(
        scored,
        lambda: make_pairs(
            frame, _read(questions, "questions"), settings, load_prompt("standard", overrides)
        ),
    )
    _write(pairs, out, "pairs", settings)


@app.command()
def funnel(scored: Scored, pairs: Pairs, questions: QuestionFile, out: Out) -> None:
    """Count where rows were lost on the way from questions to pairs."""
    from pbt_workflow import preferences, tables

    counts = preferences.funnel(
        [tables.scan_table(path, "scored") for path in scored],
        [tables.scan_table(path, "pairs") for path in pairs],
        _read(questions, "questions").height,
    )
    _write(counts, out, "funnel")


@app.command()
def balance(
    pairs: Pairs,
    funnel: Annotated[Path, typer.Option(help="The funnel's counts, for the error message.")],
    recipe: Annotated[Literal["accept", "resist", "pbt"], typer.Option(help="The recipe.")],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="The split.")],
    out: Out,
    seed: Seed = 42,
) -> None:
    """Draw a recipe's rows of one split: as many accept as resist pairs."""
    import polars as pl

    from pbt_workflow import preferences, tables

    frame = pl.concat([tables.scan_table(path, "pairs") for path in pairs])
    rows = preferences.balance(frame, recipe, split, seed, _read(funnel, "funnel"))
    _write(rows, out, "pairs", {"recipe": recipe, "split": split, "seed": seed})


@app.command()
def sft(
    config: ConfigFile,
    preferences: Annotated[Path, typer.Option(help="The recipe's training rows.")],
    model: ModelFolder,
    name: Name,
    recipe: Annotated[Literal["accept", "resist", "pbt"], typer.Option(help="The recipe.")],
    seed: Seed,
    out: Out,
    log: Annotated[Path, typer.Option(help="Training curve (Parquet).")],
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; removed at the end.")],
) -> None:
    """Fine-tune on the preferred turns."""
    from pbt_workflow.train.sft import train_sft

    run = _config(config)
    train_sft(
        preferences,
        model,
        name=name,
        recipe=recipe,
        seed=seed,
        model=run.model(name),
        lora=run.train.lora,
        sft=run.train.sft,
        micro_batch=run.runtime.training_batch,
        work=work,
        out=out,
        log=log,
    )


@app.command()
def dpo(
    config: ConfigFile,
    preferences: Annotated[Path, typer.Option(help="The recipe's training rows.")],
    model: ModelFolder,
    adapter: Annotated[Path, typer.Option(help="The SFT adapter's folder.")],
    name: Name,
    recipe: Annotated[Literal["accept", "resist", "pbt"], typer.Option(help="The recipe.")],
    seed: Seed,
    out: Out,
    log: Annotated[Path, typer.Option(help="Training curve (Parquet).")],
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; removed at the end.")],
) -> None:
    """Train on preferences from the SFT adapter; one adapter per epoch."""
    from pbt_workflow.train.dpo import train_dpo

    run = _config(config)
    train_dpo(
        preferences,
        model,
        adapter,
        name=name,
        recipe=recipe,
        seed=seed,
        model=run.model(name),
        dpo=run.train.dpo,
        epochs=run.train.dpo_epochs.get(name, run.train.dpo.epochs),
        micro_batch=run.runtime.training_batch,
        work=work,
        out=out,
        log=log,
    )


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

    run = _config(config)
    engine = _engine(run, name, model)
    rows = _read(pairs, "pairs")
    adapters = {None: adapter} if epochs is None else _epoch_adapters(epochs)
    replies = [
        balanced_replies(
            engine, Subject(name, recipe, seed, epoch), folder, rows, run.evaluations.balanced
        )
        for epoch, folder in adapters.items()
    ]
    _write(pl.concat(replies), out, "responses", run.evaluations.balanced)


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

    run = _config(config)
    replies = flipflop_replies(
        _engine(run, name, model),
        Subject(name, recipe, seed),
        adapter,
        _read(questions, "questions"),
        run.evaluations.flipflop,
        _prompt(run, "standard"),
    )
    _write(replies, out, "responses", run.evaluations.flipflop)


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

    run = _config(config)
    judged = judge_responses(
        _extractor(run, model),
        _read(responses, "responses"),
        _read(questions, "questions"),
        run.extraction,
        _prompt(run, run.extraction.prompt),
    )
    _write(judged, out, "responses", run.extraction)


@app.command()
def select(
    responses: Annotated[Path, typer.Option(help="Judged replies to dev rows, all epochs.")],
    epochs: Annotated[Path, typer.Option(help="Folder with the epochs' adapters.")],
    out: Out,
    selection: Annotated[Path, typer.Option(help="Dev accuracy per epoch (Parquet).")],
) -> None:
    """Keep the adapter with the best dev accuracy."""
    import shutil

    from pbt_workflow import tables
    from pbt_workflow.evaluate.metrics import select_epoch

    chosen = select_epoch(_read(responses, "responses"))
    best = chosen.filter("selected")["epoch"].item()
    with tables.atomic_path(out) as partial:
        shutil.copytree(_epoch_adapters(epochs)[best], partial)
    _write(chosen, selection, "selection")


@app.command()
def metrics(
    responses: Annotated[list[Path], typer.Option(help="Judged replies; repeat per file.")],
    out: Out,
    config: ConfigFile,
) -> None:
    """Compute every metric with its interval."""
    import polars as pl

    from pbt_workflow.evaluate.metrics import evaluation_metrics

    settings = _config(config).evaluations
    frame = pl.concat([_read(path, "responses") for path in responses])
    _write(evaluation_metrics(frame, settings.bootstrap), out, "metrics", settings)


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
        _config(config),
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


def _config(path: Path):
    from pbt_workflow.config import read_config

    return read_config(path)


def _read(path: Path, name: str):
    from pbt_workflow import tables

    return tables.read_table(path, name)


def _write(frame, path: Path, name: str, settings=None) -> None:
    from pbt_workflow import tables

    values = settings.model_dump() if hasattr(settings, "model_dump") else settings
    tables.write_table(frame, path, name, values)


def _about(path: Path, step):
    """Run a pure step; an error that names no place is about the file it worked on."""
    try:
        return step()
    except PbtError as error:
        raise PbtError(error.what, where=error.where or path, hint=error.hint) from None


def _prompt(run, name: str) -> str:
    from pbt_workflow.chat import load_prompt

    return load_prompt(name, run.prompts)


def _engine(run, name: str, folder: Path):
    from pbt_workflow.engines import load_engine

    return load_engine(folder, run.model(name), run.runtime.generation_batch)


def _extractor(run, folder: Path | None):
    if run.extraction.model is None:
        return None
    if folder is None:
        raise PbtError("extraction needs the extractor's folder", hint="give it with --model")
    return _engine(run, run.extraction.model, folder)


def _epoch_adapters(folder: Path) -> dict[int, Path]:
    """Epoch -> adapter folder, for the folders `epoch1`, `epoch2`, ... inside a folder."""
    found = {
        int(path.name.removeprefix("epoch")): path
        for path in Path(folder).glob("epoch*")
        if path.name.removeprefix("epoch").isdigit()
    }
    if not found:
        raise PbtError("no epoch adapters", where=folder, hint="train with `pbt dpo` first")
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
