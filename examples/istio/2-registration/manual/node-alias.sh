#!/bin/sh
# Creates one name for all agents of the cluster, which is the parent of the entries of the other scripts. An agent's
# own ID contains the uid of its node, so an entry with that parent would be valid on that node only.
set -eu
. "$(dirname "$0")/../../spire-server.sh"

spire_server entry create -node \
    -entryID spire-agents \
    -spiffeID spiffe://example.org/ns/spire/sa/spire-agent \
    -selector k8s_psat:cluster:example-cluster
