"""launch/vllm_node.sh with stand-ins for SLURM's programs, vLLM's server and curl."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, ZERO3 = ROOT / "launch" / "vllm_node.sh", ROOT / "launch" / "accelerate" / "zero3.yaml"
# The server runs until it is ended; training ends with the exit code in TRAIN_CODE.
SRUN = """#!/bin/bash
case "$*" in
*"vllm serve"*)
    printf '%s\\n' "$@" "dev mode: $VLLM_SERVER_DEV_MODE" > "$RECORD/server"
    [ -z "${SERVER_FAILS:-}" ] || exit 1
    exec sleep 600 ;;
*)
    printf '%s\\n' "$@" > "$RECORD/training"
    env | grep ^difftrain_ | sort >> "$RECORD/training"
    exit "${TRAIN_CODE:-0}" ;;
esac
"""


def run_script(folder: Path, *arguments: str, nodes: int = 5, **variables: str) -> tuple[int, str]:
    """Exit code and messages of the script on nodes n1, n2, ...; srun records its arguments."""
    programs = {
        "srun": SRUN,
        "scontrol": f"#!/bin/bash\nfor i in $(seq {nodes}); do echo n$i; done\n",
        "curl": '#!/bin/bash\n[ -z "${SERVER_FAILS:-}" ] && [ -s "$RECORD/server" ]\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "RECORD": str(folder),
        "SLURM_JOB_NODELIST": f"n[1-{nodes}]",
        "SLURM_GPUS_ON_NODE": "8",
        "POLL_SECONDS": "0.1",
    }
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
        timeout=30,
    )
    return done.returncode, done.stderr


def test_the_last_node_serves_and_the_others_train(tmp_path: Path) -> None:
    code, errors = run_script(tmp_path, str(ZERO3), "recipe=grpo_mid", "model=any", MODEL="org/big")
    assert code == 0, errors
    server = (tmp_path / "server").read_text().splitlines()
    assert "--nodelist=n5" in server
    assert server[server.index("serve") + 1] == "org/big"
    assert server[server.index("--tensor-parallel-size") + 1] == "8"
    assert server[server.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    assert "dev mode: 1" in server
    training = (tmp_path / "training").read_text().splitlines()
    assert "--nodelist=n1,n2,n3,n4" in training
    assert {"recipe=grpo_mid", "model=any", "grpo.vllm.mode=server"} <= {*training}
    assert "grpo.vllm.server_base_url=http://n5:8000" in training
    assert {"difftrain_processes=32", "difftrain_nodes=4", "difftrain_host=n1"} <= {*training}


def test_the_job_ends_with_the_exit_code_of_the_training(tmp_path: Path) -> None:
    assert run_script(tmp_path, str(ZERO3), TRAIN_CODE="2")[0] == 2


def test_a_server_that_ends_is_named_and_nothing_is_trained(tmp_path: Path) -> None:
    code, errors = run_script(tmp_path, str(ZERO3), SERVER_FAILS="1")
    assert code == 1
    assert "the vLLM server on n5 has ended" in errors
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize(
    ("arguments", "nodes", "problem"),
    [((), 5, "file of accelerate launch"), ((str(ZERO3),), 1, "at least two nodes")],
)
def test_wrong_requests_are_refused_before_anything_starts(
    tmp_path: Path, arguments: tuple[str, ...], nodes: int, problem: str
) -> None:
    code, errors = run_script(tmp_path, *arguments, nodes=nodes)
    assert (code, problem in errors) == (2, True)
    assert not (tmp_path / "server").exists()
