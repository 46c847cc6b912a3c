#!/bin/bash
# Runs the command as the user envoy, unless ENVOY_UID is 0, like the entrypoint of the official image.
set -e
if [ "${1#-}" != "$1" ]; then
  set -- envoy "$@"
fi
if [ "$(id -u)" != 0 ] || [ "$ENVOY_UID" = 0 ]; then
  exec "$@"
fi
# Allow the user to reopen /dev/stdout and /dev/stderr.
chown envoy:envoy /dev/stdout /dev/stderr
exec setpriv --reuid=envoy --regid=envoy --init-groups -- "$@"
