#!/usr/bin/env bash
# A TPU slice when there is one: the request waits in a queue, and may be for spot capacity.
#   NAME=pod ZONE=us-east5-b TYPE=v6e-16 VERSION=v2-alpha-tpuv6e tpu/queued_resource.sh request [--spot]
#   NAME=pod ZONE=us-east5-b tpu/queued_resource.sh state | delete
set -euo pipefail
: "${NAME:?the name of the slice}" "${ZONE:?its zone}"
action=${1:?request, state or delete}
shift
case $action in
request)
    gcloud compute tpus queued-resources create "$NAME-request" --node-id="$NAME" --zone="$ZONE" \
        --accelerator-type="${TYPE:?such as v6e-16}" --runtime-version="${VERSION:?runtime}" "$@"
    ;;
state) gcloud compute tpus queued-resources describe "$NAME-request" --zone="$ZONE" --format='value(state.state)' ;;
delete) gcloud compute tpus queued-resources delete "$NAME-request" --zone="$ZONE" --force --quiet ;;
*)
    echo "unknown action $action" >&2
    exit 2
    ;;
esac
