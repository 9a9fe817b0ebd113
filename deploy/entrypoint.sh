#!/bin/sh
# A run of an audit on Ray has to run on a node of the cluster: it joins without offering CPUs or GPUs. Kubernetes sets the
# variable in every pod of a namespace with a Service `ray-head`.
set -e
case "$*" in
  *"api execute_run"*)
    if [ -n "$RAY_HEAD_SERVICE_HOST" ]; then
      ray start --address=ray-head:6379 --num-cpus=0 --num-gpus=0 >/dev/null
    fi ;;
esac
exec "$@"
