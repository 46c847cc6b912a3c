#!/bin/sh
# Puts the first bundle of a federated trust domain into its ClusterFederatedTrustDomain:
#
#   6-federation/bundle.sh example-io example.io.json
#
# The file comes from that trust domain's own SPIRE server (there: `spire-server bundle show -format spiffe > example.io.json`), by
# a way that nobody can tamper with: whoever writes it may speak for every workload of example.io.
set -eu
name=$1
file=$2

kubectl patch clusterfederatedtrustdomain "$name" --type merge \
    --patch "$(jq --raw-input --slurp '{spec: {trustDomainBundle: .}}' "$file")"
