"""A real SLURM with two emulated nodes on this machine, without root rights and without munge.

`apt-get install slurm-wlm` installs it. Nodes n1 and n2 have two CPUs each and share this machine's
files. The scheduler looks every second, so that tests need not wait.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MaxArraySize={max_array_size}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""
COMMANDS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # a user's PATH may lack the daemons' folder


def missing_commands() -> list[str]:
    """The commands of SLURM that this machine lacks."""
    return [name for name in COMMANDS if shutil.which(name, path=PATH) is None]


@dataclass(frozen=True)
class SlurmCluster:
    """The running cluster: its folder and the environment of its clients."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> str:
        """What a client command prints."""
        finished = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check and finished.returncode:
            raise RuntimeError(f"{' '.join(command)}: {finished.stdout}{finished.stderr}")
        return finished.stdout

    def states(self) -> dict[str, str]:
        """The state of every job and task that waits or runs."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def kill_node(self, name: str) -> None:
        """End the daemon of a node and the processes of its tasks, as if it lost power."""
        daemon = int((self.folder / f"{name}.pid").read_text())
        steps = subprocess.run(["pgrep", "-f", r"slurmstepd: \["], capture_output=True, text=True)
        os.kill(daemon, signal.SIGKILL)
        for pid in steps.stdout.split():
            if f"SLURMD_NODENAME={name}".encode() in _environment_of(int(pid)):
                _kill_tree(int(pid))

    def start_node(self, name: str) -> None:
        """Start the daemon of a node again."""
        self.run("slurmd", "-N", name)


def _environment_of(pid: int) -> bytes:
    """The environment of a process and of its children, as far as they can be read."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    text = b""
    for process in (str(pid), *children.stdout.split()):
        try:
            text += Path(f"/proc/{process}/environ").read_bytes()
        except OSError:
            continue
    return text


def _kill_tree(pid: int) -> None:
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    for child in children.stdout.split():
        _kill_tree(int(child))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until the condition holds; fails with `what` after the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@contextmanager
def slurm_cluster(
    folder: Path, max_array_size: int = 1001, grace: int = 0
) -> Iterator[SlurmCluster]:
    """Start the cluster; its jobs are cancelled and its daemons ended afterwards.

    `grace` is how many seconds a preempted job has between SIGTERM and its end.
    """
    for name in ("state", "n1", "n2"):
        (folder / name).mkdir(parents=True)
    config = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    text = CONFIG.format(host=host, user=getpass.getuser(), folder=folder, ports=_free_ports(3),
                         max_array_size=max_array_size, grace=grace)  # fmt: skip
    config.write_text(text)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    cluster = SlurmCluster(folder, {**inherited, "SLURM_CONF": str(config), "PATH": PATH})
    try:
        cluster.run("slurmctld")
        for name in ("n1", "n2"):
            cluster.start_node(name)
        wait_until(lambda: len(_idle_nodes(cluster)) == 2, "two idle nodes", 30)
        yield cluster
    finally:
        cluster.run("scancel", "--user", getpass.getuser(), check=False)
        try:
            wait_until(lambda: not cluster.states(), "no job is left", 30)
        finally:
            for pid_file in folder.glob("*.pid"):
                with_pid = pid_file.read_text().strip()
                if with_pid:
                    _kill_tree(int(with_pid))


def _idle_nodes(cluster: SlurmCluster) -> list[str]:
    return cluster.run("sinfo", "-h", "-N", "-t", "idle", "-p", "cpu", check=False).splitlines()
