#!/bin/sh
# Deletes the entries of 2-registration/manual. Run it before you remove SPIRE. A missing entry is not an error.
set -eu
. "$(dirname "$0")/../spire-server.sh"

for entry in httpbin sleep istio-ingressgateway spire-agents; do
    spire_server entry delete -entryID "$entry" || true
done
