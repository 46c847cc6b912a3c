//! Tokens (JWT) of test issuers, and Envoy's filter that verifies them.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

/// The filters below, by the names of their dynamic metadata.
pub const METADATA: [&str; 2] = ["envoy.filters.http.jwt_authn", "envoy.filters.http.set_metadata"];

/// A key that signs tokens for any issuer.
#[derive(Debug)]
pub struct TokenKey(KeyPair);

impl TokenKey {
    /// Creates a key.
    ///
    /// # Errors
    /// Returns an error if the key cannot be created.
    pub fn new() -> Result<Self> {
        Ok(Self(KeyPair::generate_for(&PKCS_ED25519)?))
    }

    /// Signs a token with these claims. It expires in 2096.
    ///
    /// # Errors
    /// Returns an error if the token cannot be signed.
    pub fn sign(&self, mut claims: Value) -> Result<String> {
        claims["exp"] = json!(4_000_000_000_u64);
        let parts = [json!({"alg": "EdDSA", "kid": "k"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = parts.join(".");
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())?)))
    }

    /// Returns the HTTP filter that verifies tokens of these issuers, and accepts requests without a token.
    #[must_use]
    pub fn filter(&self, issuers: &[&str]) -> Value {
        let jwks = json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k", "x": URL_SAFE_NO_PAD.encode(self.0.der_bytes())
        }]});
        let mut providers = json!({});
        let mut requirements = Vec::new();
        for issuer in issuers {
            providers[issuer] = json!({
                "issuer": issuer, "payload_in_metadata": "payload", "local_jwks": {"inline_string": jwks.to_string()},
                "jwt_cache_config": {"jwt_cache_size": 100},
            });
            requirements.push(json!({"provider_name": issuer}));
        }
        requirements.push(json!({"allow_missing": {}}));
        json!({"name": "envoy.filters.http.jwt_authn", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": requirements}}}],
        }})
    }
}

/// Returns the HTTP filter `envoy.filters.http.set_metadata`, which sets this value as its dynamic metadata.
#[must_use]
pub fn metadata_filter(value: &Value) -> Value {
    json!({"name": "envoy.filters.http.set_metadata", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "envoy.filters.http.set_metadata", "value": value}],
    }})
}
