#!/bin/bash
# Succeeds if the Envoy of this container is live and has its certificate and bundles from SPIRE.
set -euo pipefail
exec 3<> /dev/tcp/127.0.0.1/9901
printf 'GET /stats?filter=%s HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n' \
  '^(server.live|sds.default.update_success|sds.ROOTCA.update_success)$' >&3
[ "$(grep -c ': [1-9]' <(grep -E '^(server|sds)' <&3))" = 3 ]
