#!/bin/bash
#SBATCH --job-name=difftrain-vllm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
# GRPO on all nodes of a SLURM job but the last, where a vLLM server generates the rollouts:
#
#   sbatch --nodes=5 --gpus-per-node=8 --partition=gpu launch/vllm_node.sh \
#       launch/accelerate/zero3.yaml recipe=grpo_mid_hard model=qwen2_5_vl_7b data=orsta_reasoning
#
# The first argument is the file of accelerate launch; its number of processes is that of one node.
# Variables: MODEL (hub id or folder that the server loads; training sends it its own weights),
# PORT (8000), SETUP (a file to source first: modules, environment), VLLM_OPTIONS (more options of
# vllm serve). Run `difftrain score` with the same settings before, in a job without this server:
# then the server's node does not wait for the probe.
set -eu -o pipefail

if [ "$#" -lt 1 ] || [ ! -f "$1" ]; then
    echo "vllm_node.sh: the first argument must be a file of accelerate launch" >&2
    exit 2
fi
accelerate_file=$1 && shift
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
num_training=$((${#nodes[@]} - 1))
if [ "$num_training" -lt 1 ]; then
    echo "vllm_node.sh: needs at least two nodes, one of them for the server (--nodes=2)" >&2
    exit 2
fi
server=${nodes[-1]}
training=$(IFS=, && echo "${nodes[*]:0:$num_training}")
port=${PORT:-8000} gpus=${SLURM_GPUS_ON_NODE:-8}
per_node=$(sed -n 's/^num_processes: *//p' "$accelerate_file")
if [ -n "${SETUP:-}" ]; then
    set +u # set-up files of sites read variables that may be unset
    source "$SETUP"
    set -u
fi

# TRL needs the development endpoints, log-probabilities after temperature, NCCL for weights, and
# --enable-scale-out for images.
VLLM_SERVER_DEV_MODE=1 srun --nodes=1 --ntasks=1 --nodelist="$server" \
    vllm serve "${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}" --port "$port" \
    --tensor-parallel-size "$gpus" --logprobs-mode processed_logprobs --enable-scale-out \
    --weight-transfer-config '{"backend": "nccl"}' ${VLLM_OPTIONS:-} &
server_pid=$!
trap 'kill "$server_pid" 2>/dev/null || true' EXIT
until curl --silent --fail "http://$server:$port/health" >/dev/null; do
    if ! kill -0 "$server_pid" 2>/dev/null; then
        echo "vllm_node.sh: the vLLM server on $server has ended; its messages are above" >&2
        exit 1
    fi
    sleep "${POLL_SECONDS:-5}"
done

# Each node starts its own processes. TRL opens port 51216 of the first node for the weights.
export difftrain_file=$accelerate_file difftrain_host=${nodes[0]} difftrain_nodes=$num_training
export difftrain_processes=$((num_training * per_node))
srun --nodes="$num_training" --ntasks="$num_training" --nodelist="$training" \
    --kill-on-bad-exit=1 bash -c 'exec accelerate launch --config_file "$difftrain_file" \
        --num_machines "$difftrain_nodes" --machine_rank "$SLURM_NODEID" \
        --num_processes "$difftrain_processes" --deepspeed_multinode_launcher standard \
        --main_process_ip "$difftrain_host" --main_process_port 29500 "$@"' run \
    launch/train.py grpo.vllm.mode=server \
    grpo.vllm.server_base_url="http://$server:$port" "$@"
