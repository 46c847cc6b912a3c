#!/bin/sh
# Removes what the named steps of the guide installed, and nothing else. Removal is in the reverse order: workloads go
# before the parts that give them identities. A missing object is not an error, so a second run can continue a first one
# that stopped.
set -eu
cd "$(dirname "$0")/.."
. ./spire-server.sh
HELM=${HELM:-helm}

usage() {
    cat >&2 <<'END'
usage: 8-clean-up/clean-up.sh [--yes] STEP…

Name only the steps that you followed with this guide, or `all`:

  1  SPIRE: its Helm releases, the namespace spire-server, its custom resource definitions
  2  registration: the ClusterSPIFFEIDs of 2-registration
  3  Istio: `istioctl uninstall --purge`, the namespace istio-system
  4  workloads: sleep, httpbin, the Gateway, and the PeerAuthentication in the namespace default
  5  authorization: the filter in each of its forms, its ConfigMaps, connections.yaml, the waypoint
  6  federation: the federated trust domains of 6-federation, and their bundles

The script shows the kubectl context and asks before it deletes. With --yes, it does not ask.
END
    exit 2
}

steps=
confirmed=
for argument in "$@"; do
    case $argument in
    --yes) confirmed=yes ;;
    [1-6]) steps="$steps $argument" ;;
    all) steps="1 2 3 4 5 6" ;;
    *) usage ;;
    esac
done
[ -n "$steps" ] || usage

chosen() {
    case " $steps " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

context=$(kubectl config current-context) || context="(no context)"
echo "kubectl context: $context"
echo "removes the objects of these steps: $(echo $steps)"
if [ -z "$confirmed" ]; then
    printf 'Continue? [y/N] '
    read -r answer || answer=
    case $answer in
    y | Y | yes) ;;
    *)
        echo "nothing was deleted" >&2
        exit 1
        ;;
    esac
fi

delete() {
    kubectl delete --ignore-not-found --wait "$@"
}

# kubectl fails if the definition of a kind does not exist, even with --ignore-not-found.
defined() {
    kubectl get crd "$1" >/dev/null 2>&1
}

# Prints the entries, relationships and bundles of the guide that the SPIRE server still has. Only this script deletes the
# bundles: after the relationship is gone, which would fetch them again, and after the entries that name them, because
# SPIRE rejects the deletion before.
held_by_spire() {
    entries=$(spire_server entry show) && relationships=$(spire_server federation list) &&
        bundles=$(spire_server bundle list) || return
    if chosen 2; then
        echo "$entries" | sed -nE 's,^SPIFFE ID *: (spiffe://[^/]*/ns/(default|istio-system)/sa/.*),entry \1,p'
    fi
    if chosen 6; then
        for trust_domain in $(sed -n 's/^ *trustDomain: //p' 6-federation/trust-domains.yaml); do
            if echo "$relationships" | grep -q "^Trust domain *: $trust_domain\$"; then
                echo "federation relationship $trust_domain"
            elif echo "$bundles" | grep -q "^\* $trust_domain\$"; then
                echo "bundle $trust_domain"
                spire_server bundle delete -id "spiffe://$trust_domain" >/dev/null 2>&1 || true
            fi
        done
    fi
}

# The controller manager applies changes of the API server to SPIRE after a delay, and only while its definitions exist.
wait_for_spire() {
    deadline=$(($(date +%s) + 120))
    while :; do
        held=$(held_by_spire)
        [ -n "$held" ] || return 0
        if [ "$(date +%s)" -ge "$deadline" ]; then
            printf 'The SPIRE server still has:\n%s\n' "$held" >&2
            echo "8-clean-up/manual.sh deletes entries of 2-registration/manual. For others, see the controller manager's log." >&2
            return 1
        fi
        sleep 1
    done
}

# `istioctl uninstall --purge` removes every Istio of the cluster, so another one must not exist.
check_istio_is_alone() {
    others=$(kubectl get deployments --all-namespaces -l app=istiod \
        -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}' | grep -v '^istio-system/istiod$') ||
        return 0
    printf 'The cluster has another Istio, which step 3 would remove, too:\n%s\n' "$others" >&2
    return 1
}

# Deleting the definitions deletes every resource of their kinds.
check_no_spire_resources() {
    left=$(kubectl get clusterspiffeids,clusterfederatedtrustdomains,clusterstaticentries -o name)
    [ -z "$left" ] && return
    printf 'These resources remain. SPIRE stays, because removing its definitions would delete them:\n%s\n' "$left" >&2
    return 1
}

helm_delete() {
    if $HELM status -n spire-server "$1" >/dev/null 2>&1; then
        $HELM delete -n spire-server "$1"
    fi
}

if chosen 3; then
    check_istio_is_alone
fi

if chosen 6; then
    if defined authorizationpolicies.security.istio.io; then
        delete -f 6-federation/istio-alone.yaml
    fi
fi

if chosen 5; then
    # The controller would write the objects below again. Kubernetes deletes its objects before their PolicyDeployments.
    if defined policydeployments.spiffe-authz.io; then
        delete policydeployments --all --cascade=foreground
    fi
    delete -k 5-authorization/controller-webhook
fi

if chosen 5 && defined wasmplugins.extensions.istio.io; then
    delete -f 5-authorization/connections.yaml
    delete -k 5-authorization/wasmplugin
    delete -k 5-authorization/envoyfilter
    delete -k 5-authorization/dynamic-module
    delete -f 5-authorization/tcp/wasmplugin.yaml
    # Istio before 1.30 does not have this kind.
    if defined trafficextensions.extensions.istio.io; then
        delete -k 5-authorization/trafficextension
    fi
    # Without the definitions of the Gateway API, there is no waypoint.
    if defined gateways.gateway.networking.k8s.io; then
        delete -k 5-authorization/waypoint
    fi
    delete configmap spiffe-authz -n default
    delete configmap spiffe-authz -n istio-system
fi

if chosen 4 && defined peerauthentications.security.istio.io; then
    delete -k 4-workloads
fi

if chosen 3; then
    if defined wasmplugins.extensions.istio.io; then
        istioctl uninstall --purge --skip-confirmation
    fi
    delete namespace istio-system
    # istiod creates these, and `istioctl uninstall` does not delete them.
    if defined gatewayclasses.gateway.networking.k8s.io; then
        delete gatewayclass istio istio-remote
    fi
    for namespace in $(kubectl get namespaces -o jsonpath='{.items[*].metadata.name}'); do
        delete configmap istio-ca-root-cert istio-ca-crl -n "$namespace"
    done
fi

if defined clusterspiffeids.spire.spiffe.io; then
    if chosen 2; then
        delete -k 2-registration
    elif chosen 6 && kubectl get clusterspiffeid istio-sidecar-reg >/dev/null 2>&1; then
        # The registrations stay, without `federatesWith`.
        kubectl apply -k 2-registration
    fi
    if chosen 6; then
        delete -f 6-federation/trust-domains.yaml
    fi
    if chosen 2 || chosen 6; then
        wait_for_spire
    fi
    if chosen 1; then
        check_no_spire_resources
        helm_delete spire
        helm_delete spire-crds
        delete namespace spire-server
        # Helm does not delete custom resource definitions.
        delete crd clusterspiffeids.spire.spiffe.io clusterfederatedtrustdomains.spire.spiffe.io \
            clusterstaticentries.spire.spiffe.io controllermanagerconfigs.spire.spiffe.io
    fi
fi
