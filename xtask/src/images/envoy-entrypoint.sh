#!/bin/bash
# What the entrypoint of the official image does: runs the command as the user envoy, unless ENVOY_UID is 0.
set -e
if [ "${1#-}" != "$1" ]; then
  set -- envoy "$@"
fi
if [ "$(id -u)" != 0 ] || [ "$ENVOY_UID" = 0 ]; then
  exec "$@"
fi
# So that it may open /dev/stdout anew.
chown envoy:envoy /dev/stdout /dev/stderr
exec setpriv --reuid=envoy --regid=envoy --init-groups -- "$@"
