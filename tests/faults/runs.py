"""Runs of the workflow that tests kill, starve and race, and looks at what lies there meanwhile."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq
from checkouts import PATH


class Run:
    """Snakemake in a folder, in a process group of its own, its messages in a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "messages.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
                cwd=folder,
                env={**os.environ, "PATH": PATH, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> int:
        return self.process.wait(timeout=1800)

    def jobs(self) -> dict[str, tuple[str, psutil.Process]]:
        """The running jobs by the file or folder they make: the `pbt` command and its process."""
        found = {}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    words = child.cmdline()
                    place = next((i for i, word in enumerate(words) if word.endswith("/pbt")), None)
                    if place is not None:
                        out = words[words.index("--out") + 1]
                        found[out] = (words[place + 1], child)
        return found

    def kill(self) -> None:
        """End Snakemake and its jobs at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def said_since(folder: Path, size: int) -> str:
    return (folder / "messages.txt").read_bytes()[size:].decode(errors="replace")


def size_of_messages(folder: Path) -> int:
    return (folder / "messages.txt").stat().st_size if (folder / "messages.txt").exists() else 0


def finish(folder: Path, *arguments: str) -> str:
    """Run to the end; what Snakemake said in this run."""
    before = size_of_messages(folder)
    code = Run(folder, *arguments).wait()
    said = said_since(folder, before)
    assert code == 0, said[-4000:]
    return said


def fail(folder: Path, *arguments: str) -> str:
    """Run and fail; what Snakemake said in this run."""
    before = size_of_messages(folder)
    assert Run(folder, *arguments).wait() != 0
    return said_since(folder, before)


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


def read_whole(path: Path) -> None:
    """Read an output to its end; raises where it is not whole."""
    match path.suffix:
        case ".parquet":
            pq.read_table(path)
        case ".safetensors":
            from safetensors import safe_open

            with safe_open(str(path), framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    tensors.get_tensor(name)
        case ".json":
            json.loads(path.read_text(encoding="utf-8"))
        case ".html":
            text = path.read_text(encoding="utf-8")
            assert text.rstrip().endswith("</html>"), "no end"
        case _:
            assert path.stat().st_size, "empty"


def is_output(path: Path, folder: Path) -> bool:
    """Whether a path is one that a user or another job takes for an output."""
    parts = path.relative_to(folder).parts
    hidden = any(part.startswith(".") or part.endswith(".work") for part in parts)
    beside = {"logs", "benchmarks"} & set(parts)
    return path.is_file() and not hidden and not beside


class Watcher(threading.Thread):
    """Looks all the time at every visible output that is new or has changed.

    Attributes:
        wrong: what was not whole.
        looks: how often the folders were gone through; seen: how many files were read.
    """

    def __init__(self, *folders: Path) -> None:
        super().__init__(daemon=True)
        self.folders, self.ended = folders, threading.Event()
        self.wrong, self.looks, self.seen, self._known = [], 0, 0, {}

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.look()

    def look(self) -> None:
        for folder in self.folders:
            for path in folder.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    if is_output(path, folder):
                        self._read(path)
        self.looks += 1

    def _read(self, path: Path) -> None:
        stat = path.stat()
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._known.get(path) == state:
            return
        try:
            read_whole(path)
        except FileNotFoundError:
            raise
        except Exception as error:
            self.wrong.append(f"{path}: {error!r}")
        self._known[path] = state
        self.seen += 1

    def stop(self) -> None:
        self.ended.set()
        self.join()
        self.look()


def half_written(*folders: Path) -> list[str]:
    """Visible outputs that are not whole."""
    watcher = Watcher(*folders)
    watcher.look()
    return watcher.wrong


class Lifetimes(threading.Thread):
    """Notes how long each job of a run takes: output -> (command, seconds)."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True)
        self.run_, self.seconds = run, {}
        self._began: dict[str, float] = {}

    def run(self) -> None:
        while self.run_.process.poll() is None:
            now = time.monotonic()
            for out, (command, _) in self.run_.jobs().items():
                began = self._began.setdefault(out, now)
                self.seconds[out] = (command, now - began)
            time.sleep(0.1)
