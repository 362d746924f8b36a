"""Copies of the workflow's files in which tests run Snakemake."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# This environment's `pbt` before any other.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def make_checkout(folder: Path) -> Path:
    """The workflow's files, without results."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "rules", "envs", "config", "profiles", "data"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name)
    return folder
