#!/bin/sh
# Has the gateway its identity? It is ready when it has, and never without.
set -eu

kubectl wait pod -n istio-system -l istio=ingressgateway --for condition=Ready --timeout "${TIMEOUT:-120s}"
kubectl get pods -n istio-system
