#!/bin/bash
# workload CALLER: a workload that sends its requests of requests.txt, and notes what it gets.
set -euo pipefail
caller=$1 number=0
run=$(< /demo/run)
while read -r from method host path; do
  number=$((number + 1))
  [ "$from" = "$caller" ] || continue
  # By the query the demo finds the request in the access log; policies do not look at it.
  status=$(call "$method" "$host" "$path?request=$run-$number")
  echo "$status" > "/demo/$run-$number.status"
  echo "$method http://$host$path: $status"
done < /etc/demo/requests.txt
