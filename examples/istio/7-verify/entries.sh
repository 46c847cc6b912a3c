#!/bin/sh
# Shows the entries of the SPIRE server, or those of one workload with `-spiffeID ID`.
#
# The parent of each entry of the controller manager is the agent of the pod's node,
# spiffe://example.org/spire/agent/k8s_psat/<cluster>/<node uid>. Its selectors are k8s:pod-uid:<uid> and those of
# ../2-registration.
set -eu
. "$(dirname "$0")/../spire-server.sh"

spire_server entry show "$@"
