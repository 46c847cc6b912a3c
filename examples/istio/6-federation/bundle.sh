#!/bin/sh
# Sets the first bundle of a federated trust domain, which a ClusterFederatedTrustDomain names:
#
#   6-federation/bundle.sh example-io example.io.json
#
# The file comes from the SPIRE server of that trust domain
# (`spire-server bundle show -format spiffe > example.io.json`). Transfer it over a channel that no one can tamper with:
# anyone who can write it can issue identities of example.io.
#
# Do not use the field `trustDomainBundle`: the controller manager reads it only when it creates the relationship, and
# ignores a bundle that is added later.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: bundle.sh NAME FILE" >&2
    exit 2
fi
. "$(dirname "$0")/../spire-server.sh"
name=$1
file=$2

trust_domain=$(kubectl get clusterfederatedtrustdomain "$name" -o jsonpath='{.spec.trustDomain}')
spire_server bundle set -format spiffe -id "spiffe://$trust_domain" <"$file"
