#!/bin/sh
# Takes everything away again, workloads first: what asks for an identity goes before what gives it. What was never there is no
# error, and what stopped half-way is ended by a second run.
set -eu
cd "$(dirname "$0")/.."
. ./spire-server.sh
HELM=${HELM:-helm}

delete() {
    kubectl delete --ignore-not-found --wait "$@"
}

# Of a kind whose definition is not there, kubectl can delete nothing, and fails.
defined() {
    kubectl get crd "$1" >/dev/null 2>&1
}

# What the SPIRE server still holds of the guide. Its bundles nobody deletes but this: not before the relationship is gone, which
# would fetch them again, and not as long as an entry names them, when SPIRE refuses.
held_by_spire() {
    entries=$(spire_server entry show) && relationships=$(spire_server federation list) &&
        bundles=$(spire_server bundle list) || return
    echo "$entries" | sed -nE 's,^SPIFFE ID *: (spiffe://[^/]*/ns/(default|istio-system)/sa/.*),entry \1,p'
    for trust_domain in $(sed -n 's/^ *trustDomain: //p' 6-federation/trust-domains.yaml); do
        if echo "$relationships" | grep -q "^Trust domain *: $trust_domain\$"; then
            echo "federation relationship $trust_domain"
        elif echo "$bundles" | grep -q "^\* $trust_domain\$"; then
            echo "bundle $trust_domain"
            spire_server bundle delete -id "spiffe://$trust_domain" >/dev/null 2>&1 || true
        fi
    done
}

# The controller manager does in SPIRE what was done in the API server, but later, and not without its definitions.
wait_for_spire() {
    deadline=$(($(date +%s) + 120))
    while :; do
        held=$(held_by_spire)
        [ -n "$held" ] || return 0
        if [ "$(date +%s)" -ge "$deadline" ]; then
            printf 'The SPIRE server still holds:\n%s\n' "$held" >&2
            echo "Entries made by hand go by 8-clean-up/manual.sh; of others, the log of the controller manager tells." >&2
            return 1
        fi
        sleep 1
    done
}

if defined wasmplugins.extensions.istio.io; then
    delete -f 6-federation/istio-alone.yaml
    delete -f 5-authorization/connections.yaml
    delete -k 5-authorization/wasmplugin
    delete -k 5-authorization/envoyfilter
    delete -k 5-authorization/dynamic-module
    delete -f 5-authorization/tcp/wasmplugin.yaml
    # Before Istio 1.30 there is none.
    if defined trafficextensions.extensions.istio.io; then
        delete -k 5-authorization/trafficextension
    fi
    # Where the Gateway API's definitions are not installed, there is no waypoint either.
    if defined gateways.gateway.networking.k8s.io; then
        delete -k 5-authorization/waypoint
    fi
    delete configmap spiffe-authz -n default
    delete configmap spiffe-authz -n istio-system
    delete -k 4-workloads

    istioctl uninstall --purge --skip-confirmation
fi
delete namespace istio-system
# What istiod itself has made, and `istioctl uninstall` does not know of.
if defined gatewayclasses.gateway.networking.k8s.io; then
    delete gatewayclass istio istio-remote
fi
for namespace in $(kubectl get namespaces -o jsonpath='{.items[*].metadata.name}'); do
    delete configmap istio-ca-root-cert istio-ca-crl -n "$namespace"
done

if defined clusterspiffeids.spire.spiffe.io; then
    delete -k 2-registration
    delete -f 6-federation/trust-domains.yaml
    wait_for_spire

    $HELM delete -n spire-server spire
    $HELM delete -n spire-server spire-crds
    delete namespace spire-server
    # Helm leaves custom resource definitions where they are.
    delete crd clusterspiffeids.spire.spiffe.io clusterfederatedtrustdomains.spire.spiffe.io \
        clusterstaticentries.spire.spiffe.io controllermanagerconfigs.spire.spiffe.io
fi
