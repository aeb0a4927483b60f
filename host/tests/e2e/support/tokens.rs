//! Who gives tokens for a registry: a server over TLS that signs them with a key for which an authority
//! vouches, as public registries have one.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{rand::SystemRandom, signature};
use serde_json::{Value, json};

use super::{
    service::Authority,
    web::{Asked, Reply, Web},
};

/// Starts it: this header's bearer may do what they ask for, whoever says nothing may pull, others get no
/// token.
pub(crate) fn start(authority: &Authority, knows: String) -> Web {
    let (certificate, key) = authority.vouch_for(&["test-issuer"]);
    let key = signature::EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        key.serialized_der(),
        &SystemRandom::new(),
    )
    .unwrap();
    let chain = STANDARD.encode(certificate.der());
    Web::start(Some(authority), move |asked| {
        let actions = match asked.header("authorization") {
            None => None,
            Some(header) if header == knows => Some(["pull", "push"].as_slice()),
            Some(_) => return Reply::new(401, "{}"),
        };
        let access = access(asked, actions.unwrap_or(&["pull"]));
        let token = signed(&key, &chain, &access);
        // Both names are in use.
        let name = if actions.is_some() {
            "access_token"
        } else {
            "token"
        };
        Reply::new(200, json!({ name: token }).to_string())
    })
}

/// What is asked for, as far as it is allowed.
fn access(asked: &Asked, allowed: &[&str]) -> Value {
    let pairs = form_urlencoded::parse(asked.query().as_bytes());
    let scopes = pairs.filter(|(key, _)| key == "scope");
    scopes
        .map(|(_, scope)| {
            let parts: Vec<_> = scope.split(':').collect();
            let actions = parts[2].split(',').filter(|it| allowed.contains(it));
            json!({"type": parts[0], "name": parts[1], "actions": actions.collect::<Vec<_>>()})
        })
        .collect()
}

fn signed(key: &signature::EcdsaKeyPair, chain: &str, access: &Value) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
    let claims = json!({
        "iss": "test-issuer", "aud": "test-registry", "sub": "", "jti": "1",
        "iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&claims));
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
