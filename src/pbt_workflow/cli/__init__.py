"""`pbt`: one command per step of the workflow. Every rule is one call; all run by hand as well.

Commands that run a model read their settings from the run's configuration (`--config`, normally
results/RUN/config.yaml); what they read and write is named by options.
"""

import sys
from typing import Annotated

import typer

from pbt_workflow import __version__
from pbt_workflow.cli import (
    analyze,
    evaluate,
    influence,
    look,
    plan,
    preferences,
    publish,
    results,
    talk,
    train,
    trees,
)
from pbt_workflow.cli.examples import add_examples
from pbt_workflow.errors import PbtError

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    trees,
    preferences,
    train,
    evaluate,
    results,
    analyze,
    influence,
    plan,
    look,
    talk,
    publish,
):
    app.add_typer(part.app)
add_examples(app)


def main() -> None:
    """Run a command; anything a user can mend ends in one message and exit status 1."""
    try:
        app()
    except PbtError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        # A full or read-only disk, a folder of someone else's: nothing of ours to trace.
        print(f"error: {error}\n  hint:  mend that and run again", file=sys.stderr)
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
