#!/bin/sh
# Writes the manifests in the folders of this directory from policies/ and values.yaml. An argument replaces the URL of
# the filter's image, and another one its digest, which `cargo xtask oci` prints.
set -eu
if [ $# -ne 0 ] && [ $# -ne 2 ]; then
    echo "usage: render.sh [URL DIGEST]" >&2
    echo "example: 5-authorization/render.sh oci://registry.example.org/spiffe-authz:0.1.0 sha256:0123…" >&2
    exit 2
fi
cd "$(dirname "$0")"
if [ $# -eq 2 ]; then
    set -- --image "$1" --sha256 "$2"
fi

sidecar=sidecars:default/app=httpbin
gateway=gateway:istio-system/istio=ingressgateway

render() {
    spiffe-authz render --values values.yaml "$@"
}

for kind in wasm-plugin traffic-extension; do
    folder=$(echo $kind | tr -d -)
    render --to $kind --proxies $sidecar -o "$folder/sidecar.yaml" "$@" policies/httpbin.yaml
    render --to $kind --proxies $gateway -o "$folder/gateway.yaml" "$@" policies/ingress.yaml
done
render --to wasm-plugin --proxies waypoint:default/Service/httpbin -o waypoint/wasmplugin.yaml "$@" policies/httpbin.yaml
render --to wasm-plugin --proxies sidecars:default/app=database --tcp-port 5432 --name spiffe-authz-tcp \
    -o tcp/wasmplugin.yaml "$@" policies/database.yaml

wasm=/etc/spiffe-authz/spiffe-authz.wasm
render --to envoy-filter --wasm $wasm --proxies $sidecar -o envoyfilter/sidecar.yaml policies/httpbin.yaml
render --to envoy-filter --wasm $wasm --proxies $gateway -o envoyfilter/gateway.yaml policies/ingress.yaml
render --to envoy-filter --module /etc/spiffe-authz/libspiffe_authz.so --proxies $sidecar \
    -o dynamic-module/sidecar.yaml policies/httpbin.yaml
