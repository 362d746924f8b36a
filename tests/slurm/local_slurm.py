"""A real SLURM on this machine, for tests: one node with pretended A100 and H100 GPUs.

munged, slurmctld and slurmd run out of one folder as whoever calls, without systemd and without
accounting. Root (or sudo that asks no password) is needed for two things: installing Debian's
packages, and writing /etc/slurm/slurm.conf and gres.conf for as long as the cluster runs, because
the SLURM plugin's job steps look for their configuration nowhere else. A SLURM that the machine
already has is never touched.

`python local_slurm.py` installs what is missing. Where that cannot be done it fails, or, with
PBT_SLURM_OPTIONAL=1 in the environment, says so and leaves the tests out (status 77).
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = 77  # the exit status that says so, as Automake has it
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PACKAGES = ("munge", "slurm-wlm")
SITE = Path("/etc/slurm")
MARK = "# Written by pbt_workflow's tests; safe to delete."

# config_overrides lets the node claim more than the machine has: requests are what is tested.
# MinJobAge keeps finished jobs visible; cred_expire is also how long a requeued job is held back.
SLURM_CONF = """{mark}
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0
MinJobAge=3600
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=2000000 Gres=gpu:a100:2,gpu:h100:2
PartitionName=cpu Nodes=ALL Default=YES State=UP
PartitionName=gpu Nodes=ALL State=UP
"""

# Device files that every Linux has stand for GPUs: SLURM only needs them to exist.
GRES_CONF = """{mark}
Name=gpu Type=a100 File=/dev/null
Name=gpu Type=a100 File=/dev/zero
Name=gpu Type=h100 File=/dev/full
Name=gpu Type=h100 File=/dev/random
"""


@dataclass(frozen=True)
class Job:
    """What SLURM knows about a job."""

    number: int
    comment: str  # the plugin writes rule_NAME_wildcards_VALUES
    folder: Path
    state: str
    partition: str
    memory: str
    minutes: int
    asked: str  # GPUs, such as a100:1; empty for none
    granted: str
    restarts: int

    def of(self, rule: str) -> bool:
        return self.comment == f"rule_{rule}" or self.comment.startswith(f"rule_{rule}_wildcards_")


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    missing = [program for program in PROGRAMS if program_path(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed; `make test-slurm` installs them"
    if not may_be_root():
        return "writing /etc/slurm/slurm.conf needs root, or sudo that asks no password"
    conf = SITE / "slurm.conf"
    if conf.is_file() and not conf.read_text().startswith(MARK):
        return f"this machine has a SLURM of its own ({conf})"
    return None


def install() -> str | None:
    """Install Debian's packages, unless the programs are there; why that cannot be, or None."""
    if all(program_path(program) for program in PROGRAMS):
        return None
    if shutil.which("apt-get") is None:
        return f"install SLURM and munge first; missing one of: {', '.join(PROGRAMS)}"
    if not may_be_root():
        return "installing SLURM needs root, or sudo that asks no password"
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    try:
        as_root(*apt, "update")
        as_root(*apt, "install", "-y", "--no-install-recommends", *PACKAGES)
    except subprocess.CalledProcessError:
        return f"apt-get cannot install {' and '.join(PACKAGES)} (its message is above)"
    return None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """A cluster for the length of a `with` block; its files and logs are in `folder`."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    controller_port, node_port = free_ports(2)
    values = {
        "mark": MARK,
        "host": socket.gethostname().split(".")[0],
        "user": getpass.getuser(),
        "folder": folder,
        "controller_port": controller_port,
        "node_port": node_port,
    }
    files = {
        SITE / "slurm.conf": SLURM_CONF.format(**values),
        SITE / "gres.conf": GRES_CONF.format(**values),
    }
    munged = [
        program_path("munged"),
        "--foreground",
        "--force",
        f"--key-file={key}",
        *(f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")),
        f"--socket={folder}/munge.socket",
    ]
    daemons = []
    try:
        as_root("mkdir", "-p", str(SITE))
        for path, text in files.items():
            as_root("tee", str(path), text=text)
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            name = Path(command[0]).name
            with open(folder / f"{name}.out", "w") as log:
                arguments = [program_path(command[0]) or command[0], *command[1:]]
                daemons.append(subprocess.Popen(arguments, stdout=log, stderr=log))
            time.sleep(1)
        wait_until_idle(folder)
        yield
    finally:
        if daemons:
            subprocess.run(["scancel", "--quiet", "--user", values["user"]], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)
        for path in files:
            as_root("rm", "-f", str(path))


def jobs(folder: Path) -> list[Job]:
    """The jobs submitted from a folder, running or finished, oldest first."""
    lines = ask("scontrol", "--details", "--oneliner", "show", "jobs").splitlines()
    found = [job_from(line) for line in lines if line.startswith("JobId=")]
    return sorted((job for job in found if job.folder == folder), key=lambda job: job.number)


def job_from(line: str) -> Job:
    fields = {}
    for item in line.split():
        name, _, value = item.partition("=")
        fields.setdefault(name, value.replace("(null)", ""))
    days, _, clock = fields["TimeLimit"].rpartition("-")
    hours, minutes, _ = clock.split(":")
    return Job(
        number=int(fields["JobId"]),
        comment=fields.get("Comment", ""),
        folder=Path(fields["WorkDir"]),
        state=fields["JobState"],
        partition=fields["Partition"],
        memory=fields["MinMemoryNode"],
        minutes=(int(days or 0) * 24 + int(hours)) * 60 + int(minutes),
        asked=fields.get("TresPerJob", "").removeprefix("gres:gpu:"),
        granted=fields.get("JOB_GRES", "").removeprefix("gpu:"),
        restarts=int(fields["Restarts"]),
    )


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until_idle(folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True)
        if set(found.stdout.split()) == {"idle"}:
            return
        time.sleep(1)
    logs = [path.read_text()[-1500:] for path in sorted(folder.glob("*.out"))]
    raise RuntimeError("\n".join([f"SLURM did not start within {seconds} s", *logs]))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def program_path(name: str) -> str | None:
    """The program, also where sbin is not on an ordinary user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def may_be_root() -> bool:
    if os.geteuid() == 0:
        return True
    sudo = shutil.which("sudo")
    return bool(sudo) and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0


def as_root(*command: str, text: str | None = None) -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run(
        [*prefix, *command], check=True, input=text, stdout=subprocess.DEVNULL, text=True
    )


if __name__ == "__main__":
    reason = install() or why_not()
    if reason and os.environ.get("PBT_SLURM_OPTIONAL") == "1":
        print(f"The SLURM tests are left out: {reason}", flush=True)
        raise SystemExit(LEFT_OUT)
    if reason:
        raise SystemExit(f"The SLURM tests cannot run: {reason}")
