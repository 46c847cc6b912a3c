#!/bin/sh
# One name for all agents of the cluster, which the entries of the other scripts have as parent. An agent's own ID ends in the
# uid of its node, so that an entry below it would hold on that node alone.
set -eu
. "$(dirname "$0")/../../spire-server.sh"

spire_server entry create -node \
    -entryID spire-agents \
    -spiffeID spiffe://example.org/ns/spire/sa/spire-agent \
    -selector k8s_psat:cluster:example-cluster
