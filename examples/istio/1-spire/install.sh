#!/bin/sh
# Installs SPIRE with its custom resources, the SPIFFE CSI driver and the SPIRE controller manager.
set -eu
cd "$(dirname "$0")"
HELM=${HELM:-helm}
REPOSITORY=https://spiffe.github.io/helm-charts-hardened/
CRDS_VERSION=0.6.0
VERSION=0.30.0

$HELM upgrade --install --namespace spire-server --create-namespace spire-crds spire-crds --repo "$REPOSITORY" \
  --version "$CRDS_VERSION"
# Wait until the server and the agents are ready.
$HELM upgrade --install --namespace spire-server spire spire --repo "$REPOSITORY" --version "$VERSION" \
  --values values.yaml --wait
