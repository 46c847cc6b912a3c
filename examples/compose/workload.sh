#!/bin/bash
# workload CALLER: sends the requests of this caller in requests.txt, and writes down the statuses.
set -euo pipefail
caller=$1 number=0
run=$(< /demo/run)
while read -r from method host path; do
  number=$((number + 1))
  [ "$from" = "$caller" ] || continue
  # The demo finds the request in the access log by its query. Policies ignore the query.
  status=$(call "$method" "$host" "$path?request=$run-$number")
  echo "$status" > "/demo/$run-$number.status"
  echo "$method http://$host$path: $status"
done < /etc/demo/requests.txt
