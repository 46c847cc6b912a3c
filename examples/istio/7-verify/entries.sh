#!/bin/sh
# Does SPIRE know the workloads? Shows its entries; `-spiffeID ID` shows those of one workload.
#
# Each entry of the controller manager has as parent the agent of the pod's node, spiffe://example.org/spire/agent/k8s_psat/
# <cluster>/<node uid>, and as selectors k8s:pod-uid:<uid> and those of ../2-registration.
set -eu
. "$(dirname "$0")/../spire-server.sh"

spire_server entry show "$@"
