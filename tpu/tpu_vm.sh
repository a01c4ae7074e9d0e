#!/usr/bin/env bash
# A Cloud TPU slice from here: create, install, run on every host, delete.
#   NAME=pod ZONE=us-east5-b TYPE=v6e-16 VERSION=v2-alpha-tpuv6e tpu/tpu_vm.sh create
#   NAME=pod ZONE=us-east5-b tpu/tpu_vm.sh install https://github.com/OWNER/jaxalign
#   NAME=pod ZONE=us-east5-b tpu/tpu_vm.sh train --algorithm ppo_lag --name first --out /mnt/shared/runs   # seen by all hosts
#   NAME=pod ZONE=us-east5-b tpu/tpu_vm.sh logs | delete
set -euo pipefail
: "${NAME:?the name of the slice}" "${ZONE:?its zone}"

on_all() { # a command on every host at once
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

action=${1:?create, install, train, logs or delete}
shift
case $action in
create)
    gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" \
        --accelerator-type="${TYPE:?such as v6e-16}" --version="${VERSION:?runtime, such as v2-alpha-tpuv6e}"
    ;;
install)
    on_all "python3 -m venv jax && git clone ${1:?URL of the repository} jaxalign && jax/bin/pip install -q -e 'jaxalign[tpu]'"
    ;;
train) # every host runs the same program; the hosts find each other through the metadata server
    on_all "cd jaxalign && PATH=\$HOME/jax/bin:\$PATH && source tpu/restart.sh && train_or_resume auto $(printf '%q ' "$@") >>train.log 2>&1"
    ;;
logs)
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=0 --command="tail -n 50 -f jaxalign/train.log"
    ;;
delete)
    gcloud compute tpus tpu-vm delete "$NAME" --zone="$ZONE" --quiet
    ;;
*)
    echo "unknown action $action" >&2
    exit 2
    ;;
esac
