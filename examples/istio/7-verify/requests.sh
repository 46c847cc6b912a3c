#!/bin/sh
# Sends three requests from sleep to httpbin, and checks that one is allowed and two are denied.
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
