#!/bin/sh
# Writes the URL and the digest of the filter's image into the manifests. `cargo xtask oci` prints the digest.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: pin.sh URL DIGEST" >&2
    echo "example: 5-authorization/pin.sh oci://registry.example.org/spiffe-authz:0.1.0 sha256:0123…" >&2
    exit 2
fi
url=$1
digest=${2#sha256:}
if ! expr "$digest" : '[0-9a-f]\{64\}$' >/dev/null; then
    echo "not a SHA-256 digest: $2" >&2
    exit 1
fi
cd "$(dirname "$0")"

for file in wasmplugin/*.yaml trafficextension/*.yaml waypoint/wasmplugin.yaml tcp/*.yaml; do
    sed -e "s|^\( *url: \).*|\1$url|" -e "s|^\( *sha256: \).*|\1\"$digest\"|" "$file" >"$file.part"
    mv "$file.part" "$file"
done
