#!/bin/sh
# Registers the workload `httpbin`, which also accepts callers from the trust domains example.io and example.ai. The
# server rejects the entry if it does not have their bundles (`bundle set`, or ../../6-federation/bundle.sh).
set -eu
. "$(dirname "$0")/../../spire-server.sh"

spire_server entry create \
    -entryID httpbin \
    -parentID spiffe://example.org/ns/spire/sa/spire-agent \
    -spiffeID spiffe://example.org/ns/default/sa/httpbin \
    -selector k8s:ns:default \
    -selector k8s:sa:httpbin \
    -selector k8s:pod-label:spiffe.io/spire-managed-identity:true \
    -federatesWith spiffe://example.io \
    -federatesWith spiffe://example.ai
