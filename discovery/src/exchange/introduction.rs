//! What the operator of one domain gives the operator of another: who the domain is, where, and how that is proved. Nothing of it is
//! secret, so it may go by mail; that it comes from the right one is what the operator who takes it decides.

use crate::operations::check_name;
use crate::pki::PkiError;

/// `weft://DOMAIN@HOST:PORT,HOST:PORT/FINGERPRINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The domain's name.
    pub domain: String,
    /// Where its controllers are, at least one.
    pub controllers: Vec<String>,
    /// SHA-256 of its authority's certificate, in hexadecimal.
    pub fingerprint: String,
}

impl std::fmt::Display for Introduction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let controllers = self.controllers.join(",");
        write!(
            f,
            "weft://{}@{controllers}/{}",
            self.domain, self.fingerprint
        )
    }
}

impl std::str::FromStr for Introduction {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let wrong = || {
            PkiError::Invalid(format!(
                "`{text}` introduces no domain: it has the form weft://DOMAIN@HOST:PORT/FINGERPRINT, as `weft domain introduction` \
                 prints it there"
            ))
        };
        let rest = text.trim().strip_prefix("weft://").ok_or_else(wrong)?;
        let (domain, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (controllers, fingerprint) = rest.split_once('/').ok_or_else(wrong)?;
        let hexadecimal = fingerprint.chars().all(|char| char.is_ascii_hexdigit());
        let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        let reached = |one: &String| !one.is_empty() && !one.contains(char::is_whitespace);
        if check_name(domain).is_err()
            || fingerprint.len() != 64
            || !hexadecimal
            || !controllers.iter().all(reached)
        {
            return Err(wrong());
        }
        Ok(Self {
            domain: domain.to_owned(),
            controllers,
            fingerprint: fingerprint.to_ascii_lowercase(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn introductions_there_and_back() {
        let fingerprint = crate::pki::sha256(b"authority");
        let text = format!("weft://b@[2001:db8::1]:8443,ctl.example/{fingerprint}");
        let read: Introduction = text.parse().unwrap();
        assert_eq!(read.domain, "b");
        assert_eq!(read.controllers, ["[2001:db8::1]:8443", "ctl.example"]);
        assert_eq!(read.to_string(), text);
        for wrong in [
            String::new(),
            format!("weft://b/{fingerprint}"),
            format!("weft://@10.0.0.1/{fingerprint}"),
            format!("weft://b@/{fingerprint}"),
            format!("weft://b@10.0.0.1/{}", &fingerprint[1..]),
            "weft.a.b.c".to_owned(),
        ] {
            let error = wrong.parse::<Introduction>().unwrap_err().to_string();
            assert!(error.contains("weft domain introduction"), "{error}");
        }
    }
}
