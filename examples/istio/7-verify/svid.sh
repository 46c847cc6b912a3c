#!/bin/sh
# Which identity has the proxy of a workload in `default`, who issued it, until when is it good, and which trust domains' bundles does
# it hold? Exit status 3 if something about it is wrong:
#
#   7-verify/svid.sh sleep
#   7-verify/svid.sh httpbin --bundle example.io --bundle example.ai
#
# All that follows the workload's label `app` goes to `spiffe-authz secret`.
set -eu
app=$1
shift

pod=$(kubectl get pod -n default -l "app=$app" -o jsonpath='{.items[0].metadata.name}')
istioctl proxy-config secret "$pod.default" -o json | spiffe-authz secret "$@" -
