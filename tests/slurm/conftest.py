"""A cluster for these tests. They run only when asked for: pytest -m slurm tests/slurm."""

import os
import subprocess
import sys
from pathlib import Path

import local_slurm
import pytest
from checkouts import PATH, ROOT, make_checkout

# Two cores may be all there is. A status check that finds nothing new puts the next one off by ten
# seconds, and most of these jobs take less: a third one uses that time.
HASTE = (
    "--jobs=3",
    "--latency-wait=5",
    "--slurm-init-seconds-before-status-checks=1",
)


def pytest_collection_modifyitems(config, items):
    """Leave these tests out unless the marker is asked for: they take minutes and need root."""
    if "slurm" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("slurm")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running single-node SLURM; see `local_slurm`."""
    reason = local_slurm.why_not()
    if reason:
        pytest.fail(reason, pytrace=False)
    with local_slurm.running(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the workflow's files and no results."""
    folder = make_checkout(tmp_path_factory.mktemp("checkout"))
    (folder / "slurm").symlink_to(os.readlink(ROOT / "slurm"))
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """This environment's `pbt`, and a secret that must not be written anywhere."""
    return {**os.environ, "PATH": PATH, "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_SecretOfTheTests"}


@pytest.fixture(scope="session")
def snakemake(environment):
    """A function that starts Snakemake in a folder, with the output in a file `output.txt`."""

    def start(folder: Path, *arguments: str) -> subprocess.Popen:
        with open(folder / "output.txt", "w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--profile", "slurm", *HASTE, *arguments],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    return start
