#!/usr/bin/env bash
# Start a study, or go on with it where it stands: the same line serves the first start and every restart.
#
#   study.sh NAME SPACE [OPTION...] [-- REQUEST...]
#
# OPTION... say where it runs (--grow-to, --gpus-per-worker, --tracking-uri, ...) and are given at every start.
# REQUEST... says what is searched (--data, --profile, --set, --trials). It counts at the first start alone: the run
# folder keeps the resolved space, and a resumed study does not take it again.
# KDSEARCH_STORAGE is the folder that all nodes mount; stores, checkpoints and students lie in it.
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
