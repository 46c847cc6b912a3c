#!/bin/bash
# Prints the requests of the workloads with their statuses, and the decision from the access log of the Envoy that made
# it.
set -euo pipefail
run=$(< /demo/run)
format='%-42s  %-20s  %-23s  %-6s  %s\n'

# Prints the value of a field of an access log line, or `-`.
field() {
  [[ $line =~ \"$1\":\"([^\"]*)\" ]] && echo "${BASH_REMATCH[1]}" || echo -
}

# shellcheck disable=SC2059
printf "$format" CALLER ASKS REQUEST STATUS DECISION
number=0
while read -r _ method host path; do
  number=$((number + 1))
  # Envoy writes the log line after the response.
  if ! line=$(timeout 20 grep -m 1 "request=$run-$number\"" < <(exec tail -n +1 -f "/demo/$host.log")); then
    echo "the access log of $host has no request $run-$number"
    exit 1
  fi
  # shellcheck disable=SC2059
  printf "$format" "$(field peer)" "$host" "$method $path" "$(< "/demo/$run-$number.status")" "$(field decision)"
done < /etc/demo/requests.txt
