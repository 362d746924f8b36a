"""Runs that are killed, starved, raced and changed: what is there afterwards is whole and right.

Slow, so not collected by itself: `make test-faults`. PBT_KILLS (5) is how many jobs are killed,
PBT_TARGET (all) what they are jobs of.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PBT_KILLS", "5"))
TARGET = os.environ.get("PBT_TARGET", "all")
# A dozen jobs of scripted models.
CHEAP = "results/smoke/trees/shard0/pairs.parquet"
pytestmark = [pytest.mark.workflow, pytest.mark.filterwarnings("ignore")]


def checkout(folder: Path) -> Path:
    """The workflow's files without results."""
    for name in ("Snakefile", "rules", "envs", "config", "profiles", "data"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        folder.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


class Run:
    """Snakemake in a folder, in a process group of its own, its messages in a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.log = folder / "messages.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
                cwd=folder,
                env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> int:
        return self.process.wait(timeout=1800)

    def jobs(self) -> list[psutil.Process]:
        """The running `pbt` processes."""
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(part.endswith("/pbt") for part in child.cmdline()):
                        found.append(child)
        return found

    def kill(self) -> None:
        """End Snakemake and its jobs at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def finish(folder: Path, *arguments: str) -> str:
    """Run to the end; what Snakemake said in this run."""
    before = (folder / "messages.txt").stat().st_size if (folder / "messages.txt").exists() else 0
    code = Run(folder, *arguments).wait()
    said = (folder / "messages.txt").read_bytes()[before:].decode(errors="replace")
    assert code == 0, said[-4000:]
    return said


def fail(folder: Path, *arguments: str) -> str:
    """Run and fail; what Snakemake said in this run."""
    before = (folder / "messages.txt").stat().st_size if (folder / "messages.txt").exists() else 0
    assert Run(folder, *arguments).wait() != 0
    return (folder / "messages.txt").read_bytes()[before:].decode(errors="replace")


def rows(folder: Path) -> dict[str, pl.DataFrame]:
    """Every table under a folder."""
    return {
        str(path.relative_to(folder)): pl.read_parquet(path)
        for path in sorted(folder.rglob("*.parquet"))
        if not path.name.startswith(".")
    }


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    assert sorted(found) == sorted(expected)
    for name, frame in expected.items():
        assert found[name].equals(frame), name


def half_written(folder: Path) -> list[str]:
    """Visible outputs that are not whole."""
    wrong = []
    for path in folder.rglob("*.parquet"):
        if path.name.startswith(".") or any(p.startswith(".") for p in path.parts):
            continue
        if any(part.endswith(".work") for part in path.parts):
            continue
        try:
            pq.read_table(path)
        except FileNotFoundError:
            continue
        except Exception as error:
            wrong.append(f"{path}: {error}")
    for path in folder.rglob("report.html"):
        with contextlib.suppress(FileNotFoundError):
            if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
                wrong.append(f"{path} has no end")
    return wrong


class Watcher(threading.Thread):
    """Looks at every visible output all the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.wrong, self.ended, self.looks = folder, [], threading.Event(), 0

    def run(self) -> None:
        while not self.ended.wait(0.3):
            self.wrong += half_written(self.folder)
            self.looks += 1


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> dict[str, pl.DataFrame]:
    folder = checkout(tmp_path_factory.mktemp("undisturbed"))
    finish(folder, TARGET, "--configfile", "config/smoke.yaml")
    return rows(folder / "results" / "smoke")


@pytest.fixture(scope="session")
def cheap(tmp_path_factory) -> dict[str, pl.DataFrame]:
    folder = checkout(tmp_path_factory.mktemp("cheap"))
    finish(folder, CHEAP, "--configfile", "config/smoke.yaml")
    return rows(folder / "results" / "smoke")


def test_killed_jobs_lose_nothing(undisturbed, tmp_path):
    folder = checkout(tmp_path / "run")
    rng = random.Random(int(os.environ.get("PBT_KILL_SEED", "1")))
    watcher = Watcher(folder / "results")
    watcher.start()
    killed, completed = 0, 0
    while killed < KILLS or completed == 0:
        run = Run(folder, TARGET, "--configfile", "config/smoke.yaml")
        moment = time.monotonic() + rng.uniform(6, 40)
        while killed < KILLS and run.process.poll() is None:
            jobs = run.jobs()
            if jobs and time.monotonic() > moment:
                # A random moment of the job, not only its start.
                time.sleep(rng.uniform(0, 3))
                with contextlib.suppress(psutil.Error):
                    rng.choice(run.jobs() or jobs).kill()
                    killed += 1
                break
            time.sleep(0.05)
        code = run.wait()
        assert not half_written(folder / "results")
        if code == 0:
            completed += 1
            assert_same(rows(folder / "results" / "smoke"), undisturbed)
            shutil.rmtree(folder / "results")
    watcher.ended.set()
    watcher.join()
    assert watcher.looks and not watcher.wrong
    assert killed == KILLS


def test_a_power_cut_and_an_unlock_lose_nothing(cheap, tmp_path):
    folder = checkout(tmp_path / "run")
    rng = random.Random(2)
    arguments = (CHEAP, "--configfile", "config/smoke.yaml")
    for _ in range(3):
        run = Run(folder, *arguments)
        time.sleep(rng.uniform(5, 15))
        run.kill()
        assert not half_written(folder / "results")
        finish(folder, "--unlock", "--configfile", "config/smoke.yaml")
    finish(folder, *arguments)
    assert_same(rows(folder / "results" / "smoke"), cheap)
    assert not list((folder / "results").rglob("*.partial")), "leftovers are swept"


def test_a_second_run_in_the_same_folder_is_refused(cheap, tmp_path):
    folder = checkout(tmp_path / "run")
    arguments = (CHEAP, "--configfile", "config/smoke.yaml")
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

    fresh, changed = checkout(tmp_path / "fresh"), checkout(tmp_path / "changed")
    change(fresh)
    finish(fresh, CHEAP, "--configfile", "config/smoke.yaml")
    run = Run(changed, CHEAP, "--configfile", "config/smoke.yaml")
    while not list((changed / "results").rglob("turn1.parquet")):
        assert run.process.poll() is None
        time.sleep(0.1)
    run.kill()
    finish(changed, "--unlock", "--configfile", "config/smoke.yaml")
    change(changed)
    finish(changed, CHEAP, "--configfile", "config/smoke.yaml")
    assert_same(rows(changed / "results" / "smoke"), rows(fresh / "results" / "smoke"))


def test_deleted_and_damaged_intermediates(cheap, tmp_path):
    folder = checkout(tmp_path / "run")
    arguments = (CHEAP, "--configfile", "config/smoke.yaml")
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
    folder = checkout(tmp_path / "run")
    # Logs stay outside: on a full disk the message itself would be lost.
    (folder / "results" / "smoke").mkdir(parents=True)
    (folder / "results" / "smoke" / "trees").symlink_to(small_disk)
    arguments = (CHEAP, "--configfile", "config/smoke.yaml")
    remount(small_disk, trouble)
    said = fail(folder, *arguments)
    assert message in said
    assert not half_written(small_disk)
    remount(small_disk, mended)
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--unlock", "--configfile", "config/smoke.yaml"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    finish(folder, *arguments)
    expected = {name: frame for name, frame in cheap.items() if name.startswith("trees/")}
    assert_same({f"trees/{name}": frame for name, frame in rows(small_disk).items()}, expected)


HOSTILE = "; touch pwned-a; $(touch pwned-b) `touch pwned-c` 'q' \"d\" & | * {x} \\"


def test_no_config_value_or_path_reaches_a_shell(cheap, tmp_path):
    folder = checkout(tmp_path / "a folder with 'quotes' and; $(touch pwned-d) spaces")
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
    folder = checkout(tmp_path / "run")
    path = folder / "config" / "smoke.yaml"
    path.write_text(path.read_text().replace("run: smoke\n", "run: smoke\nrun: other\n"))
    said = fail(folder, "--configfile", "config/smoke.yaml")
    assert "key `run` is given twice" in said and not (folder / "results").exists()
