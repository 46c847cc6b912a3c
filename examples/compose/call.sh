#!/bin/bash
# call METHOD HOST PATH: sends a request through the Envoy of this container, and prints the status.
set -euo pipefail
exec 3<> /dev/tcp/127.0.0.1/9001
printf '%s %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n' "$1" "$3" "$2" >&3
read -r -t 20 _ status _ <&3
echo "$status"
