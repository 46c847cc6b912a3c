// Command istio-rbac prints what Istio itself makes of AuthorizationPolicies: the RBAC filters that it would push, or the
// policies that it would apply to a workload.
//
// Standard input: a JSON array of policy sets, each {"policies": [{"name", "namespace", "spec"}]}. Standard output: for
// each set {"http": its Envoy HTTP filters, "tcp": its Envoy network filters}. For a set with {"rootNamespace",
// "workload": {"namespace", "labels", "waypoint"}}, it is {"applied": the policies of the workload}.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"
	authz "istio.io/api/security/v1beta1"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/security/authz/builder"
	"istio.io/istio/pilot/pkg/security/trustdomain"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/protomarshal"
)

const trustDomain = "example.org"

type policy struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Spec      json.RawMessage `json:"spec"`
}

type workload struct {
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
	Waypoint  bool              `json:"waypoint"`
}

type set struct {
	Policies      []policy  `json:"policies"`
	RootNamespace string    `json:"rootNamespace"`
	Workload      *workload `json:"workload"`
}

// What Istio pushes for a set, on each layer, or the policies that it applies to a workload.
type result struct {
	HTTP    []json.RawMessage `json:"http"`
	TCP     []json.RawMessage `json:"tcp"`
	Applied []string          `json:"applied,omitempty"`
}

func main() {
	// Standard output is for the filters alone.
	options := log.DefaultOptions()
	options.OutputPaths = []string{"stderr"}
	if err := log.Configure(options); err != nil {
		log.Fatal(err)
	}
	var sets []set
	if err := json.NewDecoder(os.Stdin).Decode(&sets); err != nil {
		log.Fatal(err)
	}
	built := make([]result, 0, len(sets))
	for _, one := range sets {
		set, err := build(one)
		if err != nil {
			log.Fatal(err)
		}
		built = append(built, set)
	}
	if err := json.NewEncoder(os.Stdout).Encode(built); err != nil {
		log.Fatal(err)
	}
}

func build(one set) (result, error) {
	var policies model.AuthorizationPoliciesResult
	byNamespace := map[string][]model.AuthorizationPolicy{}
	for _, p := range one.Policies {
		spec := &authz.AuthorizationPolicy{}
		if err := protomarshal.Unmarshal(p.Spec, spec); err != nil {
			return result{}, fmt.Errorf("%s/%s: %w", p.Namespace, p.Name, err)
		}
		read := model.AuthorizationPolicy{Name: p.Name, Namespace: p.Namespace, Spec: spec}
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], read)
		switch spec.Action {
		case authz.AuthorizationPolicy_ALLOW:
			policies.Allow = append(policies.Allow, read)
		case authz.AuthorizationPolicy_DENY:
			policies.Deny = append(policies.Deny, read)
		default:
			return result{}, fmt.Errorf("%s/%s: no filter of action %s decides", p.Namespace, p.Name, spec.Action)
		}
	}
	if w := one.Workload; w != nil {
		all := model.AuthorizationPolicies{NamespaceToPolicies: byNamespace, RootNamespace: one.RootNamespace}
		matcher := model.PolicyMatcherFor(w.Namespace, w.Labels, w.Waypoint).WithRootNamespace(one.RootNamespace)
		applied := all.ListAuthorizationPolicies(matcher)
		names := []string{}
		for _, policy := range append(applied.Allow, applied.Deny...) {
			names = append(names, policy.Namespace+"/"+policy.Name)
		}
		return result{Applied: names}, nil
	}
	b := builder.New(trustdomain.NewBundle(trustDomain, nil), &model.PushContext{}, policies, builder.Option{})
	http, err := texts(b.BuildHTTP())
	if err != nil {
		return result{}, err
	}
	tcp, err := texts(b.BuildTCP())
	return result{HTTP: http, TCP: tcp}, err
}

func texts[M proto.Message](messages []M) ([]json.RawMessage, error) {
	texts := []json.RawMessage{}
	for _, message := range messages {
		text, err := protomarshal.ToJSON(message)
		if err != nil {
			return nil, err
		}
		texts = append(texts, json.RawMessage(text))
	}
	return texts, nil
}
