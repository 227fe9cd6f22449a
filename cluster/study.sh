#!/usr/bin/env bash
# Start a study, or continue it: the same line serves the first start and every restart.
#
#   study.sh NAME SPACE [OPTION...] [-- REQUEST...]
#
# OPTION... are the options of the cluster (--grow-to, --gpus-per-worker, --tracking-uri, ...), used at every start.
# REQUEST... are those of the search (--data, --profile, --set, --trials), used at the first start alone: the run folder
# keeps the resolved space.
# KDSEARCH_STORAGE is the folder that all nodes mount, with stores, checkpoints and students.
set -euo pipefail

: "${KDSEARCH_STORAGE:?set it to a folder that all nodes mount, for example /shared/runs}"
if (($# < 2)); then
    echo "usage: study.sh NAME SPACE [OPTION...] [-- REQUEST...]" >&2
    exit 2
fi
name=$1
space=$2
shift 2
options=()
while (($#)) && [[ $1 != -- ]]; do
    options+=("$1")
    shift
done
(($#)) && shift # the --

if [[ -e $KDSEARCH_STORAGE/$name/space.yaml ]]; then
    set -- --resume
fi
exec python -m kdsearch.run "$space" --name "$name" --storage "$KDSEARCH_STORAGE" "${options[@]}" "$@"
