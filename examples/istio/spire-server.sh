# The scripts in these folders source this file. `spire_server` runs a command of the SPIRE server, such as
# `entry show`.
#
# By default, it runs in the chart's pod, in the container `spire-server`, with the default socket. If SPIRE runs
# elsewhere, set SPIRE_SERVER to a command that runs `spire-server` there.
spire_server() {
    if [ -n "${SPIRE_SERVER:-}" ]; then
        "$SPIRE_SERVER" "$@"
        return
    fi
    SPIRE_SERVER_POD=${SPIRE_SERVER_POD:-$(kubectl get pod -n spire-server \
        -l statefulset.kubernetes.io/pod-name=spire-server-0 -o jsonpath='{.items[0].metadata.name}')}
    kubectl exec -i -n spire-server -c spire-server "$SPIRE_SERVER_POD" -- /opt/spire/bin/spire-server "$@"
}
