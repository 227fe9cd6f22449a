#!/usr/bin/env bash
# A study on the nodes of a Slurm job.
#
#   export KDSEARCH_STORAGE=/shared/runs              a folder that all nodes mount (NFS, Lustre, ...)
#   sbatch cluster/slurm.sh clfd --tracking-uri http://mlflow:5000 -- --data mfnet=/shared/MFNet --trials 100
#
# The arguments are those of study.sh without NAME: the study is called slurm-JOBID. Python with kdsearch
# must be first on the PATH of every node (a virtual environment on the shared folder, activated before sbatch).
#
# Authentication: a token for this job alone, in a file that only you can read, removed at the end.
# Storage: KDSEARCH_STORAGE. Each trial is saved there after every epoch; a lost node costs the current epochs.
# Time limit: five minutes before it Slurm sends TERM, the study writes its results and ends. `scontrol requeue JOBID`
# continues it, as Slurm does after a pre-emption: a requeued job keeps its id.
#SBATCH --job-name=kdsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=kdsearch-%j.log
set -euo pipefail

: "${KDSEARCH_STORAGE:?set it to a folder that all nodes mount, for example /shared/runs}"
: "${SLURM_JOB_ID:?run this with sbatch}"
: "${1:?usage: sbatch cluster/slurm.sh SPACE [OPTION...] [-- REQUEST...]}"
# Slurm runs a copy of this script from its spool, so study.sh is looked for where sbatch was called.
study=${KDSEARCH_STUDY:-${SLURM_SUBMIT_DIR:-.}/cluster/study.sh}
gpus=${SLURM_GPUS_ON_NODE:-0}
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
mkdir -p "$KDSEARCH_STORAGE"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # this script runs there too
# The first address that is not the loopback's; KDSEARCH_HEAD_IP names another one where nodes have several networks.
head_ip=${KDSEARCH_HEAD_IP:-$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses)}
head_ip=${head_ip%% *}
address=$head_ip:$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node

export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$KDSEARCH_STORAGE/.ray-token-$SLURM_JOB_ID
unset RAY_AUTH_TOKEN # it would win over the file
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

steps=()
driver=
# shellcheck disable=SC2329  # called by the traps
finish() {
    trap - EXIT TERM INT
    # The driver first, while it still has a cluster: it needs a moment to write its results.
    if [[ -n $driver ]]; then
        kill -TERM "$driver" 2>/dev/null || true
        wait "$driver" 2>/dev/null || true
    fi
    ((${#steps[@]})) && kill -TERM "${steps[@]}" 2>/dev/null
    wait
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap finish EXIT
trap 'finish; exit 143' TERM INT

# A step does not inherit --cpus-per-task from sbatch.
srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$head" \
    ray start --head --block --node-ip-address="$head_ip" --port="${address#*:}" \
    --num-cpus="$cpus" --num-gpus="$gpus" &
steps+=($!)
for _ in {1..120}; do
    ray health-check --address "$address" >/dev/null 2>&1 && break
    kill -0 "${steps[0]}" # ends the job when the head is gone
    sleep 1
done
ray health-check --address "$address"

if ((${#nodes[@]} > 1)); then
    workers=$(IFS=, && echo "${nodes[*]:1}")
    srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --cpus-per-task="$cpus" \
        --nodelist="$workers" \
        ray start --block --address="$address" --num-cpus="$cpus" --num-gpus="$gpus" &
    steps+=($!)
fi

# --grow-to: one trial per GPU of all nodes, also of those that have not joined yet.
bash "$study" "slurm-$SLURM_JOB_ID" "$1" --address "$address" --grow-to $((${#nodes[@]} * (gpus > 0 ? gpus : 1))) \
    "${@:2}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit "$status"
