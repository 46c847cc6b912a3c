#!/bin/sh
# Registers Istio's ingress gateway without the controller manager, instead of ../ingress-gateway.yaml.
set -eu
. "$(dirname "$0")/../../spire-server.sh"

spire_server entry create \
    -entryID istio-ingressgateway \
    -parentID spiffe://example.org/ns/spire/sa/spire-agent \
    -spiffeID spiffe://example.org/ns/istio-system/sa/istio-ingressgateway-service-account \
    -selector k8s:ns:istio-system \
    -selector k8s:sa:istio-ingressgateway-service-account
