#!/bin/sh
# Installs Istio, and waits until istiod and the gateway are ready. The gateway is ready when it has its identity from
# SPIRE.
set -eu
cd "$(dirname "$0")"

istioctl install --skip-confirmation -f istio.yaml
kubectl get pods -n istio-system
