//! What a signature is worth, by whom and when.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]

use std::{fs, time::Duration};

use tempfile::TempDir;

use super::*;

/// Somebody with a key, and a directory of trusted ones.
struct Somebody {
    secret: SecretKey,
    keys: TempDir,
}

impl Somebody {
    fn trusted_as(name: &str) -> Self {
        let pair = KeyPair::generate(None).unwrap();
        let keys = tempfile::tempdir().unwrap();
        fs::write(keys.path().join(format!("{name}.pub")), &pair.public).unwrap();
        Self {
            secret: SecretKey::open(&pair.secret, None).unwrap(),
            keys,
        }
    }

    fn trust(&self, policy: Policy) -> Trust {
        Trust::new(policy, self.keys.path())
    }

    fn judge(&self, bytes: &[u8], signature: &str) -> Signature {
        self.trust(Policy::Warn)
            .judge(bytes, Some(signature.as_bytes()))
    }
}

#[test]
fn signed_bytes_are_known_by_key_name_and_comment() {
    let alice = Somebody::trusted_as("alice");
    let end = SystemTime::now() + Duration::from_secs(60);
    let comment = comment("say.plg", SystemTime::now(), Some(end), "release 7");
    let signature = alice.secret.sign(b"bytes", &comment).unwrap();
    let judged = alice.judge(b"bytes", &signature);
    let Signature::Signed(signer) = &judged else {
        panic!("{judged:?}");
    };
    assert_eq!(
        (&*signer.name, &signer.key_id),
        ("alice", &alice.secret.key_id())
    );
    assert!(
        signer.comment.ends_with("\trelease 7"),
        "{}",
        signer.comment
    );
    assert!(signer.expires.unwrap() <= end);
    assert!(matches!(judged.at(end), Signature::Expired(_)));
}

#[test]
fn other_bytes_another_comment_and_another_key_do_not_count() {
    let alice = Somebody::trusted_as("alice");
    let signature = alice
        .secret
        .sign(b"bytes", "expires: 2000-01-01T00:00:00Z")
        .unwrap();
    let judge = |bytes: &[u8], signature: &str| alice.judge(bytes, signature);
    assert!(matches!(judge(b"bytes", &signature), Signature::Expired(_)));
    assert!(matches!(
        judge(b"other", &signature),
        Signature::Modified(_)
    ));
    // Nobody lengthens a signature's life by its comment.
    let longer = signature.replace("expires: 2000", "expires: 2999");
    assert!(matches!(judge(b"bytes", &longer), Signature::Modified(_)));
    let mallory = Somebody::trusted_as("mallory");
    let judged = mallory.judge(b"bytes", &signature);
    assert!(
        matches!(
            judged,
            Signature::Invalid {
                key_id: Some(_),
                ..
            }
        ),
        "{judged:?}"
    );
    assert_eq!(
        alice.trust(Policy::Warn).judge(b"bytes", None),
        Signature::Unsigned
    );
}

#[test]
fn garbled_signatures_are_invalid_whatever_they_are() {
    let alice = Somebody::trusted_as("alice");
    let good = alice.secret.sign(b"bytes", "c").unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let mut garbled = vec![String::new(), "x".to_owned(), "\n\n\n\n".to_owned()];
    for line in 0..4 {
        for instead in ["", "AAAA", &"A".repeat(88), "trusted comment: ", "\u{fffd}"] {
            let mut lines = lines.clone();
            lines[line] = instead;
            garbled.push(lines.join("\n"));
        }
        garbled.push(lines[..line].join("\n"));
    }
    for garbled in &garbled {
        let judged = alice.judge(b"bytes", garbled);
        assert!(
            matches!(judged, Signature::Invalid { .. } | Signature::Modified(_)),
            "{garbled:?}: {judged:?}"
        );
    }
    let judged = alice.trust(Policy::Warn).judge(b"bytes", Some(b"\xff"));
    assert!(matches!(judged, Signature::Invalid { .. }));
}

#[test]
fn an_end_that_cannot_be_read_is_none_that_can_be_missed() {
    let alice = Somebody::trusted_as("alice");
    for comment in [
        "expires: soon",
        "expires:",
        "expires: 2999-01-01",
        "expires: 2999-01-01T00:00:00Z expires: 2000-01-01T00:00:00Z",
    ] {
        let signature = alice.secret.sign(b"bytes", comment).unwrap();
        let judged = alice.judge(b"bytes", &signature);
        assert!(
            matches!(judged, Signature::Invalid { .. }),
            "{comment}: {judged:?}"
        );
    }
}

#[test]
fn only_the_policy_that_requires_signatures_refuses_and_keys_count_as_they_are_now() {
    let alice = Somebody::trusted_as("alice");
    let signature = alice.secret.sign(b"bytes", "c").unwrap();
    let signed = alice.judge(b"bytes", &signature);
    for policy in [Policy::Off, Policy::Warn] {
        assert!(alice.trust(policy).admit(&Signature::Unsigned).is_ok());
    }
    let require = alice.trust(Policy::Require);
    assert!(require.admit(&signed).is_ok() && require.admit_judged(Some(&signed)).is_ok());
    let refused = require.admit_judged(None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "signatures are required, and it is not signed"
    );
    fs::remove_file(alice.keys.path().join("alice.pub")).unwrap();
    let refused = require.admit_judged(Some(&signed)).unwrap_err().to_string();
    assert!(refused.contains("is no longer trusted"), "{refused}");
    let judged = require.judge(b"bytes", Some(signature.as_bytes()));
    assert!(require.admit(&judged).is_err(), "{judged:?}");
}

#[test]
fn trusted_keys_are_read_within_bounds() {
    let alice = Somebody::trusted_as("alice");
    let keys = alice.keys.path();
    let count = || TrustedKey::all_in(keys).map(|keys| keys.len());
    fs::write(keys.join("README"), "no key").unwrap();
    fs::write(keys.join(".hidden.pub"), "no key").unwrap();
    assert_eq!(count().unwrap(), 1);
    fs::write(keys.join("bob.pub"), "no key").unwrap();
    let error = count().unwrap_err().to_string();
    assert!(error.contains("bob.pub: it is no public key"), "{error}");
    fs::write(keys.join("bob.pub"), vec![b'x'; 5_000]).unwrap();
    assert!(
        count()
            .unwrap_err()
            .to_string()
            .contains("more than 4096 bytes")
    );
    let key = fs::read(keys.join("alice.pub")).unwrap();
    fs::write(keys.join("bob.pub"), &key).unwrap();
    for number in 0..MAX_KEYS {
        fs::write(keys.join(format!("{number}.pub")), &key).unwrap();
    }
    assert!(
        count()
            .unwrap_err()
            .to_string()
            .contains("more than 256 keys")
    );
}
