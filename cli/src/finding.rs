//! The findings of `doctor` and `secret`: slug, layer, severity, summary and remedy.

use spiffe_authz::lint::Severity;

/// The layers that a request passes, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FindingLayer {
    /// The configuration that Envoy accepted.
    Envoy,
    /// The delivery of certificates and bundles to Envoy.
    Secrets,
    /// The identity of Envoy itself.
    Identity,
    /// The authorities that Envoy trusts.
    Trust,
    /// The certificate that a connection must present.
    Handshake,
    /// The attributes of a request that reach the filter.
    Request,
    /// The filter and its place in the filter chain.
    Filter,
}

impl FindingLayer {
    /// All layers, from the outside in.
    pub(crate) const ALL: [Self; 7] =
        [Self::Envoy, Self::Secrets, Self::Identity, Self::Trust, Self::Handshake, Self::Request, Self::Filter];

    /// Returns the name in reports.
    pub(crate) const fn slug(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Secrets => "secrets",
            Self::Identity => "identity",
            Self::Trust => "trust",
            Self::Handshake => "handshake",
            Self::Request => "request",
            Self::Filter => "filter",
        }
    }
}

macro_rules! findings {
    ($($variant:ident $slug:literal $layer:ident $severity:ident $summary:literal $remedy:literal)*) => {
        /// The code of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum FindingCode {
            $(#[doc = $summary] $variant,)*
        }

        impl FindingCode {
            /// All codes, in the order of docs/reference/doctor-findings.md.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the stable name.
            pub(crate) const fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// Returns the layer of the problem.
            pub(crate) const fn layer(self) -> FindingLayer {
                match self { $(Self::$variant => FindingLayer::$layer,)* }
            }

            /// Returns the severity.
            pub(crate) const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// Returns the meaning, in a sentence or two.
            pub(crate) const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }

            /// Returns the next step, in full sentences.
            pub(crate) const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

findings! {
    UpdateRefused "update-refused" Envoy Error
        "Envoy rejected the last update of a listener or a cluster. The previous version stays in use, if there is one."
        "Fix the cause that Envoy reports, and send the update again."
    ListenerWarming "listener-warming" Envoy Warning
        "A listener waits for a secret, a route table, or the configuration of a filter. The previous version serves, if there is one."
        "Check the findings under secrets and filter, and whether the control plane sends the route table. The listener serves when the missing part arrives."
    ClusterWarming "cluster-warming" Envoy Warning
        "A cluster waits for a secret. At its start, Envoy requests its listeners only after every cluster has started."
        "Fix the cause under secrets; the cluster starts when its secrets arrive."
    UpdatesRejected "updates-rejected" Envoy Warning
        "Since its start, Envoy has rejected updates of clusters, listeners, routes or filters. It keeps the last accepted configuration."
        "Search Envoy's log for `rejected`, and fix the configuration that it names."
    EnvoyUnsupported "envoy-unsupported" Envoy Error
        "The filter does not run on this release of Envoy. Before 1.38, Envoy does not expose the caller's certificate to it."
        "Use a release from the table in README.md."
    EnvoyVulnerable "envoy-vulnerable" Envoy Error
        "Callers can bypass rules on paths: this release does not normalize `/x/..;/admin` (CVE-2026-73551, CVE-2026-73553)."
        "Update Envoy to 1.38.4, 1.39.3, 1.40.0, or a later patch release of these."
    EnvoyReleaseUnknown "envoy-release-unknown" Envoy Note
        "The dump does not contain the release of Envoy. It is unknown whether the filter runs on it, and whether it is safe."
        "Compare `envoy --version` with the releases in README.md."
    PagesIncomplete "pages-incomplete" Envoy Note
        "A page, or a section of `config_dump`, was not given. Everything that depends on it is unknown."
        "Save `config_dump`, `certs` and `stats` without a filter, and pass all three."
    MomentUnknown "moment-unknown" Envoy Note
        "The time of the pages is unknown, so a certificate that looks valid can have expired."
        "Save `stats` with `server.uptime` and `config_dump` with the bootstrap, or examine the running Envoy."

    AgentUnreachable "agent-unreachable" Secrets Error
        "Envoy cannot connect to the SPIRE agent. Without it, Envoy gets no identity, or the current one expires."
        "Start the agent. Mount its socket at the path that the cluster names, and let Envoy read and write it."
    WorkloadUnknown "workload-unknown" Secrets Error
        "The SPIRE agent answers and does not give Envoy an identity: no registration entry matches this workload."
        "Compare the selectors in `spire-server entry show` with this Envoy. A new entry reaches the agent within a few seconds."
    SecretNameUnknown "secret-name-unknown" Secrets Error
        "The SPIRE agent answers and rejects the name of the secret: it does not have a secret or a bundle of this name."
        "Request `default` and `ROOTCA`, and set the names of `sds` in agent.conf as in examples/bootstrap/spire."
    SecretMissing "secret-missing" Secrets Error
        "A TLS certificate or a bundle that Envoy requires has not arrived."
        "Check that the source of the secret is running and has a secret of this name and kind."
    SecretRejected "secret-rejected" Secrets Warning
        "Since its start, Envoy has rejected an update of the secret and kept the previous one."
        "Search Envoy's log for the reason. Usually, Envoy cannot read a bundle or a certificate."
    SecretUnreadable "secret-unreadable" Secrets Error
        "A secret arrived without the certificate or the bundle that Envoy uses it for."
        "Request the certificate as `default` and the bundle as `ROOTCA`, and check the names of `sds` in agent.conf."
    AgentUnknown "agent-unknown" Secrets Note
        "Whether the SPIRE agent answers is unknown. Without the agent, secrets expire or never arrive."
        "Keep the counters of secrets and of the agent's cluster: in Istio, with `proxyStatsMatcher`."

    SvidExpired "svid-expired" Identity Error
        "Envoy's own certificate has expired, so peers reject it."
        "Check that the SPIRE agent is reachable and that its server issues SVIDs, and compare the clocks."
    NotYetGood "not-yet-good" Identity Error
        "Envoy's own certificate is not valid yet, so peers reject it."
        "Compare the clocks of this node, of the SPIRE server and of the peers."
    ForeignIssuer "foreign-issuer" Identity Error
        "The issuer of Envoy's own certificate is not an authority in the bundle of its trust domain, so peers reject it."
        "If the SPIRE server was re-created or istiod issued the certificate, restart the agent and this proxy."
    SvidMalformed "svid-malformed" Identity Error
        "Envoy's own certificate is not an X509-SVID."
        "Get the certificate from SPIRE. `spiffe-authz cert` shows every rule that it violates."
    SvidForeign "svid-foreign" Identity Error
        "Envoy's own identity belongs to a trust domain other than `trustDomain` in the filter's configuration."
        "Set `trustDomain` to the trust domain of this workload, or register the workload in that trust domain."
    SvidWrongPattern "svid-wrong-pattern" Identity Note
        "Envoy's own SPIFFE ID does not have the form that `identity.pattern` requires of callers."
        "If callers are registered with the same template, change `identity.pattern` or the template."

    NotValidated "not-validated" Trust Error
        "Envoy does not validate the certificates of callers."
        "Take the validation context `ROOTCA` from the SPIRE agent, as examples/bootstrap does."
    SpiffeValidatorMissing "spiffe-validator-missing" Trust Warning
        "Envoy uses its default validator: an authority of one trust domain can issue identities of every other."
        "Get `ROOTCA` from SPIRE without `disable_spiffe_cert_validation`. In Istio, check that SPIRE answers, and not istiod."
    BundlesPooled "bundles-pooled" Trust Error
        "One `trusted_ca` contains authorities of several trust domains, so each can issue identities of the others."
        "Use Envoy's SPIFFE validator with one bundle for each trust domain, as SPIRE configures it."
    FederationOpen "federation-open" Trust Error
        "The filter accepts trust domains that its document does not name, and Envoy does not use its SPIFFE validator: each authority can issue identities of every trust domain."
        "Use Envoy's SPIFFE validator, or list the trust domains in `federatedTrustDomains`."
    BundleMissing "bundle-missing" Trust Error
        "The filter's document, or a matcher of a cluster, names a trust domain without a bundle: the handshake with its workloads fails."
        "Check `spire-server bundle list`, `federatesWith` of this workload's entry, and `default_all_bundles_name` in agent.conf."
    BundleUnnamed "bundle-unnamed" Trust Note
        "Envoy has the bundle of a trust domain that the filter's configuration does not name: its callers pass the handshake and are denied."
        "Add it to `federatedTrustDomains` if its workloads are allowed, or end the federation."
    BundleExpired "bundle-expired" Trust Error
        "Every authority in the bundle of a trust domain has expired."
        "Check with `spire-server federation list` and `spire-server bundle list` whether the bundle is refreshed."
    BundleNotYetGood "bundle-not-yet-good" Trust Error
        "No authority in the bundle of a trust domain is valid yet, so the handshake with its workloads fails."
        "Compare the clocks of this node and of the SPIRE server that created the authority."
    BundleUnreadable "bundle-unreadable" Trust Error
        "A bundle does not contain an authority that can be read, so the handshake with its trust domain fails."
        "Check `spire-server bundle show -format spiffe`; Envoy's `trust_bundles` accepts only keys with `use: x509-svid`."
    BundleForeign "bundle-foreign" Trust Warning
        "The authorities in the bundle of a trust domain name a different trust domain, so they probably come from the wrong server."
        "Check the URL of the bundle endpoint. With `https_web`, SPIRE does not compare the bundle with the trust domain."
    UntrustedAccepted "untrusted-accepted" Trust Error
        "`ACCEPT_UNTRUSTED` accepts certificates that no trusted authority has issued."
        "Remove `trust_chain_verification`."
    ExpiredAccepted "expired-accepted" Trust Error
        "`allow_expired_certificate` accepts expired certificates."
        "Remove `allow_expired_certificate`."
    TrustDomainFiltered "trust-domain-filtered" Trust Error
        "The matchers for subject alternative names exclude a trust domain that the filter's configuration accepts."
        "Add the prefix `spiffe://<trust domain>/`. In Istio, use `caCertificates` in the mesh configuration."
    ServerNotValidated "server-not-validated" Trust Warning
        "A cluster presents an SVID and does not validate the server's certificate, so any server can receive the requests."
        "Add the validation context `ROOTCA` from the SPIRE agent to the cluster's UpstreamTlsContext."
    ServerNameFiltered "server-name-filtered" Trust Error
        "The matchers for subject alternative names of a cluster exclude every SPIFFE ID, so the handshake with a server that has an SVID fails."
        "Match the server's SPIFFE ID with `san_type: URI`; in Istio, with `subjectAltNames` in the DestinationRule."
    ServerUnchecked "server-unchecked" Trust Note
        "A cluster accepts any server that has an SVID of a trusted trust domain, because it has no matchers for subject alternative names."
        "Add `match_typed_subject_alt_names` with the server's SPIFFE ID."

    PlainText "plain-text" Handshake Warning
        "Connections without TLS reach the filter. They have no identity, so every request is denied."
        "Add a DownstreamTlsContext to the filter chain, or set `identity.peer` to `optional` if such callers are intended."
    ClientCertificateOptional "client-certificate-optional" Handshake Warning
        "The handshake does not require a client certificate. The filter denies callers without one."
        "Set `require_client_certificate`, or set `identity.peer` to `optional` if such callers are intended."
    SessionResumption "session-resumption" Handshake Warning
        "TLS sessions can be resumed. Envoy does not validate the certificate of a resumed session, so a caller keeps its access after it is no longer trusted."
        "Set `disable_stateless_session_resumption` and `disable_stateful_session_resumption`."

    PathNotNormalized "path-not-normalized" Request Error
        "Policies use paths, and Envoy does not normalize them: only for the filter, `/public/../admin` differs from `/admin`."
        "Set `normalize_path` in the connection manager; in Istio, `meshConfig.pathNormalization`."
    SlashesNotMerged "slashes-not-merged" Request Warning
        "Policies use paths. For the filter, `//admin` differs from `/admin`; for the workload, it might not."
        "Set `merge_slashes` in the connection manager; in Istio, `pathNormalization.normalization: MERGE_SLASHES`."
    EscapedSlashesKept "escaped-slashes-kept" Request Warning
        "Policies use paths. For the filter, `/public%2fadmin` is one segment; for the workload, it might not be."
        "Set `path_with_escaped_slashes_action` to `REJECT_REQUEST`; in Istio, `DECODE_AND_MERGE_SLASHES`."
    PathParametersIgnored "path-parameters-ignored" Request Error
        "Policies use paths, and the route table ignores path parameters: Envoy routes `/admin;x=y` in the same way as `/admin`."
        "Remove `ignore_path_parameters_in_path_matching` from the route table."
    RemoteAddressUntrusted "remote-address-untrusted" Request Error
        "Policies use the remote address, and any client can choose it with the header `x-forwarded-for`."
        "Set `use_remote_address: true`, with `xff_num_trusted_hops` behind HTTP proxies; it is also required with the PROXY protocol."
    PeerPrincipalNotHashable "peer-principal-not-hashable" Request Error
        "Envoy can reuse the inner connection of one caller for another: `io.istio.peer_principal` is not a hashable object."
        "Set `factory_key: envoy.hashable_string` in set_filter_state. In Istio, update istiod and the proxies to 1.29.2 or newer."
    PeerPrincipalMissing "peer-principal-missing" Request Error
        "The filter reads the caller from `io.istio.peer_principal`, which no filter before it sets: every request is denied."
        "Set it on the HBONE listener as examples/bootstrap/tunnel does, and use the transport socket internal_upstream."
    PeerPrincipalUnused "peer-principal-unused" Request Warning
        "In HBONE, the filter is in an internal listener, which has no TLS, and it reads the caller from TLS: it denies every request there."
        "Set `identity.from: peerPrincipal` in the document of the filter in this listener."
    XfccNotForwarded "xfcc-not-forwarded" Request Error
        "The filter reads the caller from `x-forwarded-client-cert`, and Envoy removes or rewrites this header: every request is denied."
        "Set `forward_client_cert_details: FORWARD_ONLY` in the connection manager."
    XfccForwarded "xfcc-forwarded" Request Warning
        "Envoy passes on the `x-forwarded-client-cert` that a client wrote, and the workload can trust it by mistake."
        "Set `forward_client_cert_details: SANITIZE_SET` in the connection manager."
    SourceAddressMissing "source-address-missing" Request Error
        "Policies use the caller's address, and the listener does not provide it to the filter, so such requests are denied."
        "Add the network filter set_filter_state before the connection manager, as examples/bootstrap does."
    PeerCertificateMissing "peer-certificate-missing" Request Error
        "The dynamic module does not get the caller's certificate, so it denies every caller."
        "Add the network filter set_filter_state before the connection manager, as examples/bootstrap/dynamic-module does."
    ServerNameMissing "server-name-missing" Request Warning
        "Policies use `connection.sni`, and the listener does not read it."
        "Add the listener filter `envoy.filters.listener.tls_inspector`."
    TokenMissing "token-missing" Request Error
        "Policies use tokens, and the filter does not get their claims: a field with a token matches no request, and a negated field matches every request."
        "Add `envoy.filters.http.jwt_authn` with `payload_in_metadata: payload` before the filter; in Istio, a RequestAuthentication. The dynamic module needs set_filter_state, too."

    FilterMissing "filter-missing" Filter Error
        "No listener has the filter, so this Envoy does not authorize requests."
        "Add the filter to the connection manager. In Istio, check that the WasmPlugin selects this workload and its traffic."
    DelegateMissing "delegate-missing" Filter Error
        "The policies of this namespace are in another document, and no filter with it comes before this one: every request is denied."
        "Apply the object of the namespace that `spiffe-authz render` wrote. It decides before the one of the mesh."
    FilterUnknown "filter-unknown" Filter Note
        "Whether a listener has the filter, or whether Envoy fetched its code, is unknown."
        "Examine Envoy again after its listeners have started, or save `config_dump` with all sections and `stats`."
    NothingToGuard "nothing-to-guard" Filter Note
        "No listener has the filter, and none requests a client certificate, as in an Envoy that only sends requests."
        "Add the filter only if callers reach a workload through this Envoy."
    ListenerUnguarded "listener-unguarded" Filter Warning
        "A filter chain accepts mutual TLS and HTTP but does not contain the filter."
        "Add the filter to this chain, or remove the chain."
    TcpUnguarded "tcp-unguarded" Filter Note
        "A filter chain accepts mutual TLS and TCP but does not contain a filter of this project."
        "Check whether this chain is needed. Every caller of a trusted trust domain can use it."
    FilterNotLoaded "filter-not-loaded" Filter Error
        "The listener names the filter, and its configuration or its code has not arrived."
        "Check that the source of extension configurations answers. In Istio, search istio-agent's log for the download of the image."
    FilterFailing "filter-failing" Filter Warning
        "The VM of the filter has failed since Envoy started. Until it is rebuilt, requests get 503."
        "Search Envoy's log for `wasm`, and report the failure with that part of the log."
    ConfigurationRefused "configuration-refused" Filter Error
        "The filter rejects its configuration. The previous one stays in use, if there is one."
        "Fix the errors that are named here. `spiffe-authz check` reports the same before you deploy."
    FilterAfterRouter "filter-after-router" Filter Error
        "The filter comes after a terminal filter, such as the router, so no request would reach it. Envoy rejects such a listener."
        "Move the filter before the router, and before every filter that acts on the request."
    ActsBeforeFilter "acts-before-filter" Filter Warning
        "A filter that can respond to, change or forward a request comes before the filter."
        "Move the filter before it. In Istio, use the phase `AUTHZ`."
    FilterDisabled "filter-disabled" Filter Error
        "The filter is disabled, in the chain or on a route, so requests pass without a decision."
        "Remove `disabled`, and `typed_per_filter_config` with the filter's name from the routes."
    UpgradeUnguarded "upgrade-unguarded" Filter Error
        "An upgrade has HTTP filters of its own, and this filter is not among them: it does not authorize requests with the upgrade."
        "Add the filter to `filters` of the upgrade, or remove `filters` to use those of the connection manager."
    RouteShadow "route-shadow" Filter Warning
        "A route sets `mode: shadow` for the dynamic module: requests that policies deny are logged and allowed there."
        "Remove `mode: shadow` from the route after the trial."
    FilterFailOpen "filter-fail-open" Filter Error
        "If the filter fails, or its code does not load, requests pass without a decision."
        "Set `failure_policy: FAIL_RELOAD` and remove `fail_open`; in Istio, `failStrategy: FAIL_CLOSE`."
    FilterOptional "filter-optional" Filter Warning
        "The filter is optional: an Envoy that does not know its type skips it, and requests pass without a decision."
        "Remove `is_optional` from the filter, so that such an Envoy rejects the listener."
    FilterStaysDown "filter-stays-down" Filter Note
        "If the VM of the filter fails, every request is denied until Envoy restarts."
        "Set `failure_policy: FAIL_RELOAD`, which also denies, and rebuilds the VM after a second."
    LabelsMissing "labels-missing" Filter Note
        "The bootstrap has no stats tags for the filter's counters: Prometheus gets one metric for each mode, verdict, reason and policy."
        "Copy `stats_tags` from examples/bootstrap/server/envoy.yaml."
}

#[cfg(test)]
mod tests {
    use super::FindingCode;

    const PAGE: &str = include_str!("../../docs/reference/doctor-findings.md");
    const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshoot.md");

    #[test]
    fn every_finding_has_its_page() {
        for code in FindingCode::ALL {
            let slug = code.slug();
            let row = format!("| [`{slug}`](#{slug}) | {} | {} |", code.layer().slug(), code.severity().slug());
            assert!(PAGE.contains(&row), "{row}");
            let section = format!("\n## {slug}\n\n{}\n\n{}\n", code.summary(), code.remedy());
            assert!(PAGE.contains(&section), "{section}");
        }
        let findings = PAGE.split_once("\n# Findings\n").expect("a part for findings").1;
        assert_eq!(findings.matches("\n## ").count(), FindingCode::ALL.len());
    }

    #[test]
    fn troubleshooting_names_findings() {
        const LINK: &str = "](reference/doctor-findings.md#";
        let is_row = |line: &&str| line.starts_with('|') && line.contains(LINK);
        let rows: Vec<&str> = TROUBLESHOOTING.lines().filter(is_row).collect();
        assert!(rows.len() > 25, "{}", rows.len());
        for row in rows {
            let (_, findings) = row.trim_end_matches(" |").rsplit_once(" | ").expect("a column for findings");
            for link in findings.match_indices("[`").map(|(start, _)| &findings[start + 2..]) {
                let (slug, rest) = link.split_once('`').expect("the end of a slug");
                assert!(FindingCode::ALL.iter().any(|code| code.slug() == slug), "{slug}");
                assert!(rest.starts_with(&format!("](reference/doctor-findings.md#{slug})")), "{slug}: {row}");
            }
        }
        for message in [
            "CERTIFICATE_VERIFY_FAILED",
            "no identity issued",
            "15021",
            "SAN matcher",
            "wasm-default-deny",
            "upstream connect error",
            "imagePullSecret",
            "file-root:",
        ] {
            assert!(TROUBLESHOOTING.contains(message), "{message}");
        }
    }
}
