# Sourced by the scripts here: `spire_server` runs a command of SPIRE's server, `entry show` for example.
#
# In the pod of the chart: its container beside the controller manager's is named, and the socket is the command's default.
# For a server elsewhere, set SPIRE_SERVER to a command that runs `spire-server` there.
spire_server() {
    if [ -n "${SPIRE_SERVER:-}" ]; then
        "$SPIRE_SERVER" "$@"
        return
    fi
    SPIRE_SERVER_POD=${SPIRE_SERVER_POD:-$(kubectl get pod -n spire-server \
        -l statefulset.kubernetes.io/pod-name=spire-server-0 -o jsonpath='{.items[0].metadata.name}')}
    kubectl exec -i -n spire-server -c spire-server "$SPIRE_SERVER_POD" -- /opt/spire/bin/spire-server "$@"
}
