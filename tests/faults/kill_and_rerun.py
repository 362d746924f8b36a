"""Runs that are killed, starved, raced and changed: what is there afterwards is whole and right.

Slow, so not collected by itself: `make test-faults`. PBT_KILLS (5) is how many jobs are killed:
from 30 on of the whole smoke run, and then of every command; fewer, of one with a single recipe.
PBT_KILL_SEED (1) says which ones and when.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml
from checkouts import ROOT, make_checkout
from runs import (
    Lifetimes,
    Run,
    Watcher,
    assert_same,
    fail,
    finish,
    half_written,
    rows,
)

KILLS = int(os.environ.get("PBT_KILLS", "5"))
SMOKE = ("--configfile", "config/smoke.yaml")
# A dozen jobs of scripted models.
CHEAP = "results/smoke/trees/shard0/pairs.parquet"
pytestmark = [pytest.mark.workflow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="session")
def cheap(tmp_path_factory) -> dict[str, pl.DataFrame]:
    folder = make_checkout(tmp_path_factory.mktemp("cheap"))
    finish(folder, CHEAP, *SMOKE)
    return rows(folder / "results" / "smoke")


def less(folder: Path) -> Path:
    """The same folder with every kind of job in its smoke run, but fewer of each."""
    path = folder / "config" / "smoke.yaml"
    values = yaml.safe_load(path.read_text())
    values["train"]["recipes"] = ["pbt"]
    values["trees"]["shards"] = 1
    values["evaluations"]["team"]["turns"] = 2
    path.write_text(yaml.safe_dump(values))
    return folder


def choose(lifetimes: dict[str, tuple[str, float]], rng: random.Random) -> list[str]:
    """KILLS outputs whose jobs are to be killed: every command in turn, in random order."""
    outputs = list(lifetimes)
    rng.shuffle(outputs)
    turns: dict[str, int] = {}
    for out in outputs:
        command = lifetimes[out][0]
        turns[out] = sum(lifetimes[o][0] == command for o in outputs[: outputs.index(out)])
    return sorted(outputs, key=turns.__getitem__)[:KILLS]


def kill_one(run: Run, doomed: set[str], lifetimes: dict, rng: random.Random) -> str | None:
    """Kill a doomed job at a random moment of its life; None if the run ended before one."""
    moments: dict[str, float] = {}
    while run.process.poll() is None:
        now, jobs = time.monotonic(), run.jobs()
        for out in doomed & set(jobs):
            moments.setdefault(out, now + rng.uniform(0, 0.8) * lifetimes[out][1])
            if now >= moments[out]:
                with contextlib.suppress(psutil.Error):
                    jobs[out][1].kill()
                    return out
        time.sleep(0.05)
    return None


def test_killed_jobs_lose_nothing(tmp_path):
    make = make_checkout if KILLS >= 30 else lambda folder: less(make_checkout(folder))
    whole = make(tmp_path / "undisturbed")
    run = Run(whole, *SMOKE)
    noted = Lifetimes(run)
    noted.start()
    assert run.wait() == 0
    noted.join()
    expected, lifetimes = rows(whole / "results" / "smoke"), noted.seconds
    assert "metrics.parquet" in expected

    folder = make(tmp_path / "run")
    rng = random.Random(int(os.environ.get("PBT_KILL_SEED", "1")))
    watcher = Watcher(folder / "results", folder / "resources")
    watcher.start()
    left, killed, targets = set(choose(lifetimes, rng)), [], ()

    def assert_undisturbed() -> None:
        found = rows(folder / "results" / "smoke")
        assert_same(found, {name: expected[name] for name in (found if targets else expected)})

    while left:
        run = Run(folder, *targets, *SMOKE)
        out = kill_one(run, left, lifetimes, rng)
        code = run.wait()
        assert not half_written(folder / "results", folder / "resources")
        if out is not None:
            left.remove(out)
            killed.append(lifetimes[out][0])
            print("killed", killed[-1], out, flush=True)
            continue
        assert code == 0, run.log.read_text()[-4000:]
        assert_undisturbed()
        # Some jobs were faster this time than their death: once more, as far as those.
        targets = tuple(sorted(left))
        for name in ("results", "resources"):
            shutil.rmtree(folder / name)
    finish(folder, *targets, *SMOKE)
    assert_undisturbed()
    watcher.stop()
    assert watcher.seen > len(expected) and not watcher.wrong
    assert not list(folder.rglob("*.partial")), "leftovers are swept"
    print(f"{len(killed)} killed, {len(set(killed))} commands; {watcher.seen} outputs looked at")
    assert len(killed) == KILLS
    assert len(set(killed)) == min(KILLS, len({command for command, _ in lifetimes.values()}))


def test_a_power_cut_and_an_unlock_lose_nothing(cheap, tmp_path):
    folder = make_checkout(tmp_path / "run")
    rng = random.Random(2)
    arguments = (CHEAP, *SMOKE)
    for _ in range(3):
        run = Run(folder, *arguments)
        time.sleep(rng.uniform(5, 15))
        run.kill()
        assert not half_written(folder / "results")
        finish(folder, "--unlock", *SMOKE)
    finish(folder, *arguments)
    assert_same(rows(folder / "results" / "smoke"), cheap)
    assert not list((folder / "results").rglob("*.partial")), "leftovers are swept"


def test_a_second_run_in_the_same_folder_is_refused(cheap, tmp_path):
    folder = make_checkout(tmp_path / "run")
    arguments = (CHEAP, *SMOKE)
    first = Run(folder, *arguments)
    while not list((folder / ".snakemake" / "locks").glob("*")):
        assert first.process.poll() is None
        time.sleep(0.05)
    assert "cannot be locked" in fail(folder, *arguments)
    assert first.wait() == 0
    assert_same(rows(folder / "results" / "smoke"), cheap)


def test_a_config_changed_half_way_ends_as_if_it_had_been_so_from_the_start(tmp_path):
    def change(folder: Path) -> None:
        path = folder / "config" / "smoke.yaml"
        values = yaml.safe_load(path.read_text())
        values["pairs"] |= {"aggregate": "sum", "split_seed": 7}
        values["questions"]["trees"]["limit"] = 50
        path.write_text(yaml.safe_dump(values))

    fresh, changed = make_checkout(tmp_path / "fresh"), make_checkout(tmp_path / "changed")
    change(fresh)
    finish(fresh, CHEAP, *SMOKE)
    run = Run(changed, CHEAP, *SMOKE)
    while not list((changed / "results").rglob("turn1.parquet")):
        assert run.process.poll() is None
        time.sleep(0.1)
    run.kill()
    finish(changed, "--unlock", *SMOKE)
    change(changed)
    finish(changed, CHEAP, *SMOKE)
    assert_same(rows(changed / "results" / "smoke"), rows(fresh / "results" / "smoke"))


def test_deleted_and_damaged_intermediates(cheap, tmp_path):
    folder = make_checkout(tmp_path / "run")
    arguments = (CHEAP, *SMOKE)
    finish(folder, *arguments)
    results = folder / "results" / "smoke"
    for name in ("questions/trees", "trees/shard0/scored", "trees/shard0/pairs"):
        (results / f"{name}.parquet").unlink()
    finish(folder, *arguments)
    assert_same(rows(results), cheap)
    # A damaged one is named, and what depends on it is left as it is.
    victim = results / "trees" / "shard0" / "filtered.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    before = (results / "trees" / "shard0" / "pairs.parquet").read_bytes()
    said = fail(folder, *arguments, "--forcerun", "score_trees")
    assert "filtered.parquet" in said and "Traceback" not in said
    assert "delete the file and run the workflow again" in said
    assert (results / "trees" / "shard0" / "pairs.parquet").read_bytes() == before
    victim.unlink()
    (results / "trees" / "shard0" / "pairs.parquet").unlink()
    finish(folder, *arguments)
    assert_same(rows(results), cheap)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB that can be made larger or read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


@pytest.mark.parametrize(
    ("trouble", "mended", "message"),
    [("size=64k", "size=64m", "No space left"), ("size=64m,ro", "rw", "Read-only file system")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing(cheap, tmp_path, small_disk, trouble, mended, message):
    folder = make_checkout(tmp_path / "run")
    # Logs stay outside: on a full disk the message itself would be lost.
    (folder / "results" / "smoke").mkdir(parents=True)
    (folder / "results" / "smoke" / "trees").symlink_to(small_disk)
    arguments = (CHEAP, *SMOKE)
    remount(small_disk, trouble)
    said = fail(folder, *arguments)
    assert message in said
    assert not half_written(small_disk)
    remount(small_disk, mended)
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--unlock", *SMOKE],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    finish(folder, *arguments)
    expected = {name: frame for name, frame in cheap.items() if name.startswith("trees/")}
    assert_same({f"trees/{name}": frame for name, frame in rows(small_disk).items()}, expected)


HOSTILE = "; touch pwned-a; $(touch pwned-b) `touch pwned-c` 'q' \"d\" & | * {x} \\"


def test_no_config_value_or_path_reaches_a_shell(cheap, tmp_path):
    folder = make_checkout(tmp_path / "a folder with 'quotes' and; $(touch pwned-d) spaces")
    data = folder / "data" / 'it\'s; $(touch pwned-e) "easy".jsonl'
    shutil.copyfile(folder / "data" / "easy" / "questions.jsonl", data)
    prompt = folder / "config" / "my; touch pwned-f 'prompt'.txt"
    shutil.copyfile(ROOT / "src" / "pbt_workflow" / "prompts" / "standard.txt", prompt)
    values = yaml.safe_load((folder / "config" / "smoke.yaml").read_text())
    values["questions"]["trees"]["path"] = str(data.relative_to(folder))
    values["prompts"] = {"standard": str(prompt.relative_to(folder))}
    values["extraction"]["opening"] = f"{HOSTILE}\nnext line"
    values["filter"]["opening"] = HOSTILE
    values["filter"]["labels"] = ["agree", f"dis{HOSTILE}"]
    values["evaluations"]["flipflop"]["final"] = HOSTILE
    values["evaluations"]["flipflop"]["challenges"] = {"pbt": HOSTILE}
    values["evaluations"]["misinformation"]["filler"] = HOSTILE
    values["evaluations"]["misinformation"]["system"] = HOSTILE
    (folder / "config" / "hostile.yaml").write_text(yaml.safe_dump(values))
    target = "results/smoke/trees/shard0/turn0.replies.parquet"
    finish(folder, target, "--configfile", "config/hostile.yaml")
    said = finish(folder, "-n", "-p", "--configfile", "config/hostile.yaml")
    assert "write_report" in said
    assert not list(tmp_path.rglob("pwned-?")) and not list(Path.cwd().glob("pwned-?"))
    made = rows(folder / "results" / "smoke")["trees/shard0/turn0.replies.parquet"]
    assert len(made) == len(cheap["trees/shard0/turn0.replies.parquet"])


def test_a_key_given_twice_is_refused_before_any_job(tmp_path):
    folder = make_checkout(tmp_path / "run")
    path = folder / "config" / "smoke.yaml"
    path.write_text(path.read_text().replace("run: smoke\n", "run: smoke\nrun: other\n"))
    said = fail(folder, *SMOKE)
    assert "key `run` is given twice" in said and not (folder / "results").exists()
