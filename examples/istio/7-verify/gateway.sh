#!/bin/sh
# Waits until the gateway is ready. It is ready when it has its identity.
set -eu

kubectl wait pod -n istio-system -l istio=ingressgateway --for condition=Ready --timeout "${TIMEOUT:-120s}"
kubectl get pods -n istio-system
