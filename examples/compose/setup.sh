#!/bin/bash
# Federates two SPIRE servers, registers the workloads of both trust domains, and creates the join token of each agent.
# It can run again while the servers run.
set -euo pipefail

# Runs a command on the SPIRE server of a trust domain.
server() {
  local domain=$1
  shift
  /opt/spire/bin/spire-server "$@" -socketPath "/run/spire/$domain/api.sock"
}

# Set the first bundles, because nothing authenticates the bundle endpoints yet. Afterwards, the servers fetch each
# other's bundles from there.
server example.org bundle show -format spiffe | server example.io bundle set -format spiffe -id spiffe://example.org > /dev/null
server example.io bundle show -format spiffe | server example.org bundle set -format spiffe -id spiffe://example.io > /dev/null
echo "example.org and example.io: the SPIRE servers know each other's bundle"

for domain in example.org example.io; do
  if server "$domain" entry show | grep -q '^Found 0 entries'; then
    # Use the entries of the examples, but identify each workload by the label of its container instead of the path of
    # its program.
    entries=$(sed 's#"unix", "value": "path:/opt/workloads/\(.*\)/envoy"#"docker", "value": "label:spiffe-authz.workload:\1"#' \
      "/etc/spire/entries-$domain.json")
    if grep '"unix"' <<< "$entries"; then
      echo "entries-$domain.json: these selectors are not what they were"
      exit 1
    fi
    server "$domain" entry create -data - <<< "$entries" > /dev/null
  fi
  echo "$domain: these workloads are registered, each by the label of its container:"
  server "$domain" entry show | sed -n "s#^SPIFFE ID *: \(spiffe://$domain/ns/.*\)#  \1#p"

  # Start each agent without its old data, which can be older than the server's authorities.
  rm -rf "/agents/$domain"/*
  server "$domain" bundle show > "/agents/$domain/bootstrap.crt"
  server "$domain" token generate -spiffeID "spiffe://$domain/agent" | sed -n 's/^Token: //p' > "/agents/$domain/join-token"
done

# The Envoys write their access logs as a different user.
chmod 1777 /demo
# The demo uses this value to distinguish its requests from those of an earlier run.
date +%s > /demo/run
