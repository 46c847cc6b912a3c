#!/bin/sh
# Shows the identity of the proxy of a workload in `default`, its issuer and expiry, and the bundles of the proxy. The
# exit status is 3 if there is a finding:
#
#   7-verify/svid.sh sleep
#   7-verify/svid.sh httpbin --bundle example.io --bundle example.ai
#
# The first argument is the workload's label `app`. The other arguments are options of `spiffe-authz secret`.
set -eu
if [ $# -eq 0 ]; then
    echo "usage: svid.sh APP [OPTION…]" >&2
    exit 2
fi
app=$1
shift

pod=$(kubectl get pod -n default -l "app=$app" -o jsonpath='{.items[0].metadata.name}')
istioctl proxy-config secret "$pod.default" -o json | spiffe-authz secret "$@" -
