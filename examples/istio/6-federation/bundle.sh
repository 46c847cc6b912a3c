#!/bin/sh
# Gives the SPIRE server the first bundle of a federated trust domain, which a ClusterFederatedTrustDomain names:
#
#   6-federation/bundle.sh example-io example.io.json
#
# The file comes from that trust domain's own SPIRE server (there: `spire-server bundle show -format spiffe > example.io.json`), by
# a way that nobody can tamper with: whoever writes it may speak for every workload of example.io.
#
# Not by the field `trustDomainBundle`: the controller manager reads it only when it makes the relationship, and ignores a bundle that
# is patched in later.
set -eu
. "$(dirname "$0")/../spire-server.sh"
name=$1
file=$2

trust_domain=$(kubectl get clusterfederatedtrustdomain "$name" -o jsonpath='{.spec.trustDomain}')
spire_server bundle set -format spiffe -id "spiffe://$trust_domain" <"$file"
