#!/bin/sh
# Takes away the entries of 2-registration/manual, before SPIRE goes. Those that were never made are no error.
set -eu
. "$(dirname "$0")/../spire-server.sh"

for entry in httpbin sleep istio-ingressgateway spire-agents; do
    spire_server entry delete -entryID "$entry" || true
done
