"""What every job does: it keeps the logs of attempts that fail, and never asks the hub."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import PATH

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SNAKEFILE = """
rule once_wrong:
    output: "done"
    log: "logs/once_wrong/a.log"
    retries: 3
    resources: option=lambda wildcards, attempt: "--no-such-option" if attempt < 3 else "--version"
    shell: "pbt {resources.option} >{log:q} 2>&1 && touch {output}"
"""


def start(code: str, log: Path) -> int:
    """A `pbt` whose command is some code; its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = ("import os, sys", "from pbt_workflow import cli", code, "cli.main()")
    with log.open("wb") as file:
        return subprocess.run(
            [sys.executable, "-c", "\n".join(lines)], stdout=file, stderr=file
        ).returncode


@linux
@pytest.mark.workflow
def test_a_retried_job_keeps_the_logs_of_its_failed_attempts(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=tmp_path,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    logs = {p.name: p.read_text() for p in (tmp_path / "logs/once_wrong").iterdir()}
    assert set(logs) == {"a.log", "a.log.1", "a.log.2"}
    assert "--no-such-option" in logs["a.log.1"] and "--no-such-option" in logs["a.log.2"]
    assert logs["a.log"].startswith("pbt-workflow")


@linux
@pytest.mark.parametrize(
    ("code", "status", "kept"),
    [
        ("cli.app = lambda: print('all is well')", 0, []),
        ("cli.app = lambda: sys.exit(3)", 3, ["a.log.1"]),
        ("cli.app = lambda: open('no/such/file')", 1, ["a.log.1"]),
        ("cli.app = lambda: 1 / 0", 1, ["a.log.1"]),
        (f"cli.app = lambda: os.kill(os.getpid(), {signal.SIGKILL})", -9, ["a.log.1"]),
        (f"cli.app = lambda: os.kill(os.getpid(), {signal.SIGTERM})", -15, ["a.log.1"]),
    ],
    ids=["success", "status", "message", "traceback", "killed", "terminated"],
)
def test_a_log_is_kept_however_its_job_ends(tmp_path, code, status, kept):
    log = tmp_path / "results" / "logs" / "some_rule" / "a.log"
    assert start(code, log) == status
    log.unlink()  # as Snakemake does before it tries again
    assert [path.name for path in log.parent.iterdir()] == kept


@linux
def test_what_is_started_by_hand_leaves_nothing_else(tmp_path):
    assert start("cli.app = lambda: sys.exit(3)", tmp_path / "a.log") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


@pytest.mark.parametrize(
    ("command", "offline"), [("sft", True), ("report", True), ("fetch-model", False)]
)
def test_only_commands_that_fetch_may_ask_the_hub(command, offline):
    code = f"""
import os, sys
from pbt_workflow import cli

(part,) = [c for c in cli.app.registered_groups for c in c.typer_instance.registered_commands
           if (c.name or c.callback.__name__) == {command!r}]
assert "huggingface_hub" not in sys.modules, "too late to tell it"

def command():
    from huggingface_hub import constants
    print(constants.HF_HUB_OFFLINE)

part.name, part.callback = {command!r}, command
sys.argv = ["pbt", {command!r}]
cli.main()
"""
    environment = {k: v for k, v in os.environ.items() if "OFFLINE" not in k}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stdout.strip() == str(offline), result.stderr
