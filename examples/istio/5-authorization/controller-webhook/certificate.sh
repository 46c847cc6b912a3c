#!/bin/sh
# Creates the certificate of the webhook, or renews it: a key in the Secret of the controller, and the certificate in the
# ValidatingWebhookConfiguration, by which the API server recognizes the controller. The previous certificate stays there,
# because the pods get the new Secret up to a minute later. With cert-manager, use a Certificate with the same Secret, and
# its annotation for `caBundle`, instead.
set -eu

namespace=${NAMESPACE:-spiffe-authz}
days=${DAYS:-365}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

kubectl get secret spiffe-authz-webhook -n "$namespace" --ignore-not-found \
    -o go-template='{{index .data "tls.crt" | base64decode}}' > "$directory/previous.crt"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$days" -subj /CN=spiffe-authz-webhook \
    -addext "subjectAltName=DNS:spiffe-authz-controller.$namespace.svc" -keyout "$directory/tls.key" \
    -out "$directory/tls.crt" 2> "$directory/log" || { cat "$directory/log" >&2; exit 1; }
kubectl create secret tls spiffe-authz-webhook -n "$namespace" --cert "$directory/tls.crt" --key "$directory/tls.key" \
    --dry-run=client -o yaml | kubectl apply -f -
kubectl patch validatingwebhookconfiguration spiffe-authz --type json -p "[{\"op\": \"add\", \
    \"path\": \"/webhooks/0/clientConfig/caBundle\", \"value\": \"$(cat "$directory/tls.crt" "$directory/previous.crt" | base64 -w 0)\"}]"
echo "The certificate is valid for $days days. Run this script again before it expires."
