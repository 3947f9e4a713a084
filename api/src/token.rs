//! Tokens as people carry them, and what is kept of them.

use std::fmt;
use std::str::FromStr;

/// SHA-256 in hexadecimal.
pub fn sha256(octets: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, octets).as_ref())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Octets that nobody can guess, in hexadecimal.
///
/// # Panics
/// Where the kernel gives none: nothing is safe then.
pub fn random(octets: usize) -> String {
    let mut random = vec![0; octets];
    getrandom::fill(&mut random).expect("the kernel gives random octets");
    hex(&random)
}

/// Whether two texts are the same, in a time that says nothing of where they differ.
pub fn same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    let differs = pairs.fold(0, |differs, (one, other)| {
        std::hint::black_box(differs | (one ^ other))
    });
    one.len() == other.len() && differs == 0
}

/// A token as people carry it: `weft.ID.SECRET.FINGERPRINT`, the last of whom it is shown to: the domain's authority, or the one of a
/// router's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    /// Its public part.
    pub id: String,
    /// What proves that one has it.
    pub secret: String,
    /// SHA-256 of the certificate of the authority, or of one that has none.
    pub fingerprint: String,
}

impl TokenText {
    /// A new one.
    pub fn create(fingerprint: String) -> Self {
        Self {
            id: random(5),
            secret: random(24),
            fingerprint,
        }
    }

    /// What is kept of the secret.
    pub fn hash(&self) -> String {
        sha256(self.secret.as_bytes())
    }
}

impl fmt::Display for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            secret,
            fingerprint,
        } = self;
        write!(f, "weft.{id}.{secret}.{fingerprint}")
    }
}

/// A text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no token: it has the form weft.ID.SECRET.FINGERPRINT, as `weft token create` or `weft api token create` prints it"
)]
pub struct NoToken;

impl FromStr for TokenText {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        match parts.as_slice() {
            ["weft", id, secret, fingerprint] if fingerprint.len() == 64 => Ok(Self {
                id: (*id).to_owned(),
                secret: (*secret).to_owned(),
                fingerprint: (*fingerprint).to_owned(),
            }),
            _ => Err(NoToken),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn tokens_there_and_back() {
        let token = TokenText::create(sha256(b"authority"));
        assert_eq!(token.to_string().parse::<TokenText>().unwrap(), token);
        for text in ["", "weft.a.b", "weft.a.b.c", "waft.a.b.c"] {
            assert!(text.parse::<TokenText>().is_err(), "{text}");
        }
    }

    #[test]
    fn texts_are_the_same_or_not() {
        assert!(same("", "") && same("abc", "abc"));
        for (one, other) in [("abc", "abd"), ("abc", "ab"), ("", "a"), ("xbc", "abc")] {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
