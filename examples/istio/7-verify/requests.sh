#!/bin/sh
# Does the filter decide? One request that passes and two that do not, from sleep to httpbin.
set -eu

failed=0
expect() {
    wanted=$1
    shift
    status=$(kubectl exec -n default deploy/sleep -c sleep -- curl -s -o /dev/null -w '%{http_code}' "$@")
    echo "$status, wanted $wanted: $*"
    [ "$status" = "$wanted" ] || failed=1
}

expect 200 http://httpbin:8000/status/200
expect 403 http://httpbin:8000/ip
expect 403 -X DELETE http://httpbin:8000/status/200
exit $failed
