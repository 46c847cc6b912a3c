#!/bin/bash
# Links the filter with the linker in LINKER, and exports only the hooks that the filter has.
#
# The SDK exports every hook of proxy-wasm. Envoy calls each exported hook for each request, and the code of the others takes
# 20 kB. A hook that is not exported is not called. Rust has no setting for the exports of a dependency.
set -euo pipefail

hooks=(
  proxy_abi_version_0_2_1
  proxy_on_memory_allocate
  proxy_on_context_create
  proxy_on_vm_start
  proxy_on_configure
  proxy_on_tick
  proxy_on_request_headers
  proxy_on_request_body
  proxy_on_request_trailers
  proxy_on_new_connection
  proxy_on_downstream_data
  proxy_on_upstream_data
  proxy_on_delete
)

arguments=()
while (($# > 0)); do
  if [[ $1 == --export && $2 == proxy_* && " ${hooks[*]} " != *" $2 "* ]]; then
    shift 2
  else
    arguments+=("$1")
    shift
  fi
done
exec "$LINKER" "${arguments[@]}"
