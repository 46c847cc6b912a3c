#!/bin/sh
# Registers the workload `sleep` without the controller manager, instead of ../sidecars.yaml. Without the service
# account as a selector, each labeled pod in `default` would be `sleep`.
set -eu
. "$(dirname "$0")/../../spire-server.sh"

spire_server entry create \
    -entryID sleep \
    -parentID spiffe://example.org/ns/spire/sa/spire-agent \
    -spiffeID spiffe://example.org/ns/default/sa/sleep \
    -selector k8s:ns:default \
    -selector k8s:sa:sleep \
    -selector k8s:pod-label:spiffe.io/spire-managed-identity:true
