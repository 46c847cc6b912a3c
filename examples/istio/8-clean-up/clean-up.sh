#!/bin/sh
# Takes everything away again, workloads first: what asks for an identity goes before what gives it.
set -eu
cd "$(dirname "$0")/.."
HELM=${HELM:-helm}
# What was never there is no error.
delete() {
    kubectl delete --ignore-not-found --wait "$@"
}

delete -f 6-federation/istio-alone.yaml
delete -f 5-authorization/connections.yaml
delete -k 5-authorization/wasmplugin
delete -k 5-authorization/trafficextension
delete -k 5-authorization/envoyfilter
delete -f 5-authorization/tcp/wasmplugin.yaml
# Where the Gateway API's definitions are not installed, there is no waypoint either.
if kubectl get crd gateways.gateway.networking.k8s.io >/dev/null 2>&1; then
    delete -k 5-authorization/waypoint
fi
delete configmap spiffe-authz -n default
delete configmap spiffe-authz -n istio-system
delete -k 4-workloads

istioctl uninstall --purge --skip-confirmation
delete namespace istio-system
# What istiod itself has made, and `istioctl uninstall` does not know of.
delete gatewayclass istio istio-remote
for namespace in $(kubectl get namespaces -o jsonpath='{.items[*].metadata.name}'); do
    delete configmap istio-ca-root-cert istio-ca-crl -n "$namespace"
done

# While the controller manager still runs, so that it removes the entries, too.
delete -k 2-registration
delete -f 6-federation/trust-domains.yaml

$HELM delete -n spire-server spire
$HELM delete -n spire-server spire-crds
delete namespace spire-server
# Helm leaves custom resource definitions where they are.
delete crd clusterspiffeids.spire.spiffe.io clusterfederatedtrustdomains.spire.spiffe.io clusterstaticentries.spire.spiffe.io \
    controllermanagerconfigs.spire.spiffe.io
