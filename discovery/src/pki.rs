//! The domain's certificate authority, and tokens.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use tracing::{error, warn};
pub use weft_api::token::{TokenText, random, sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509CertificationRequest};

/// How long a certificate is good that a controller shows to another domain's: it makes one for each connection.
const CONTROLLER_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the controller's own certificate is good. It is renewed at two thirds.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// The same of the authority's.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Clocks of routers and controllers may differ by so much, in the one direction: certificates are good from so long before they are made.
const CLOCKS: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is wrong with a key, a certificate or a request for one.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// It is no such thing.
    #[error("{0}")]
    Invalid(String),
    /// Its file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

fn invalid(what: &str) -> impl Fn(rcgen::Error) -> PkiError + '_ {
    move |error| PkiError::Invalid(format!("{what}: {error}"))
}

/// The authority of a domain: what it signs is who it says.
pub struct Authority {
    domain: String,
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The domain.
    pub domain: String,
    /// The router's name.
    pub router: String,
    /// SHA-256 of its public key, in hexadecimal.
    pub key: String,
    /// When the certificate ends, s since 1970.
    pub not_after: i64,
}

fn validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCKS;
    params.not_after = now + lifetime;
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Authority {
    /// Makes the key and certificate of a new domain; gives both in PEM.
    ///
    /// # Errors
    /// None that a name can cause.
    pub fn create(domain: &str) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate().map_err(invalid("a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("weft domain {domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key).map_err(invalid("the authority"))?;
        Ok((key.serialize_pem(), certificate.pem()))
    }

    /// The authority of a domain, from PEM.
    ///
    /// # Errors
    /// Where it is none.
    pub fn load(domain: &str, key: &str, certificate: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key).map_err(invalid("the authority's key"))?;
        let der = pem(certificate)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key)
            .map_err(invalid("the authority's certificate"))?;
        Ok(Self {
            domain: domain.to_owned(),
            certificate: der,
            issuer,
        })
    }

    /// Its certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What tokens have of it: SHA-256 of its certificate.
    pub fn fingerprint(&self) -> String {
        sha256(&self.certificate)
    }

    /// A certificate for the controller itself, reached by these names and addresses: certificate and key, DER.
    ///
    /// # Errors
    /// Where a name is none.
    pub fn server(&self, names: &[String]) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
        let key = KeyPair::generate().map_err(invalid("a key"))?;
        let mut params = CertificateParams::new(Vec::new()).map_err(invalid("a certificate"))?;
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.clone().try_into().map_err(invalid(name))?),
            });
        }
        params.distinguished_name = named(&format!("weft controller of {}", self.domain));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, SERVER_LIFETIME);
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(invalid("a certificate"))?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// A certificate that the controller shows to those of other domains: certificate and key, DER.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn controller(&self) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
        let key = KeyPair::generate().map_err(invalid("a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("weft controller of {}", self.domain));
        let uri = format!("weft://{}/controller", self.domain);
        let uri = uri.as_str().try_into().map_err(invalid("the name"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        validity(&mut params, CONTROLLER_LIFETIME);
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(invalid("a certificate"))?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// Signs a router's request (PKCS #10, DER): all that is taken of it is its key.
    ///
    /// # Errors
    /// Where it is none, or was not signed with its key.
    pub fn sign(
        &self,
        name: &str,
        request: &[u8],
        lifetime: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into())
            .map_err(invalid("the certificate request"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        let uri = format!("weft://{}/router/{name}", self.domain);
        let uri = uri.as_str().try_into().map_err(invalid("the name"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        validity(&mut params, lifetime);
        request.params = params;
        let certificate = request
            .signed_by(&self.issuer)
            .map_err(invalid("the certificate"))?;
        Ok(certificate.der().to_vec())
    }
}

/// How long a certificate is good that nobody but itself has signed.
const SELF_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate of a server that is known by its fingerprint, for these names and addresses: key and certificate, PEM.
///
/// # Errors
/// Where a name is none.
pub fn self_signed(name: &str, names: &[String]) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(invalid("a key"))?;
    let mut params = CertificateParams::new(names).map_err(invalid("a certificate's names"))?;
    params.distinguished_name = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params, SELF_LIFETIME);
    let certificate = params.self_signed(&key).map_err(invalid("a certificate"))?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// A key, and a request for a certificate with it: PEM, and PKCS #10 in DER.
///
/// # Errors
/// None that a caller can cause.
pub fn request(key: Option<&str>) -> Result<(String, Vec<u8>), PkiError> {
    let key = match key {
        Some(pem) => KeyPair::from_pem(pem).map_err(invalid("the router's key"))?,
        None => KeyPair::generate().map_err(invalid("a key"))?,
    };
    let params = CertificateParams::default();
    let request = params
        .serialize_request(&key)
        .map_err(invalid("a certificate request"))?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// The one block of a PEM text, DER.
///
/// # Errors
/// Where it is none.
pub fn pem(text: &str) -> Result<Vec<u8>, PkiError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes())
        .map_err(|error| PkiError::Invalid(format!("no PEM: {error}")))?;
    Ok(block.contents)
}

/// The private key of a PEM text, DER.
///
/// # Errors
/// Where it is none.
pub fn private_key(text: &str) -> Result<Vec<u8>, PkiError> {
    let key = KeyPair::from_pem(text).map_err(invalid("the key"))?;
    Ok(key.serialize_der())
}

fn parsed(certificate: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| PkiError::Invalid(format!("the certificate: {error}")))?;
    Ok(parsed)
}

/// What is behind `weft://` in a certificate's name.
fn name<'a>(parsed: &'a X509Certificate<'_>) -> Result<&'a str, PkiError> {
    let wrong = |what: &str| PkiError::Invalid(format!("the certificate: {what}"));
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| wrong("its names cannot be read"))?
        .ok_or_else(|| wrong("it has no name"))?;
    let mut names = names.value.general_names.iter();
    let name = names.find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("weft://"),
        _ => None,
    });
    name.ok_or_else(|| wrong("it is neither a router's nor a controller's"))
}

/// Who a router's certificate is for.
///
/// # Errors
/// Where it is no router's.
pub fn identity(certificate: &[u8]) -> Result<Identity, PkiError> {
    let parsed = parsed(certificate)?;
    let (domain, router) = name(&parsed)?
        .split_once("/router/")
        .ok_or_else(|| PkiError::Invalid("the certificate: it is no router's".into()))?;
    Ok(Identity {
        domain: domain.to_owned(),
        router: router.to_owned(),
        key: sha256(parsed.public_key().raw),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

/// The key that a router asks a certificate for, as [`Identity::key`] has it.
///
/// # Errors
/// Where it is no request for a certificate.
pub fn requested_key(request: &[u8]) -> Result<String, PkiError> {
    let (_, parsed) = X509CertificationRequest::from_der(request)
        .map_err(|error| PkiError::Invalid(format!("the certificate request: {error}")))?;
    Ok(sha256(parsed.certification_request_info.subject_pki.raw))
}

/// The domain whose controller a certificate is for.
///
/// # Errors
/// Where it is no controller's.
pub fn domain(certificate: &[u8]) -> Result<String, PkiError> {
    let parsed = parsed(certificate)?;
    let domain = name(&parsed)?.strip_suffix("/controller");
    let domain =
        domain.ok_or_else(|| PkiError::Invalid("the certificate: it is no controller's".into()));
    Ok(domain?.to_owned())
}

/// Whose certificate it is, as it says itself.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let parsed = parsed(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    names.next()?.as_str().ok().map(str::to_owned)
}

/// When a certificate was made and ends, s since 1970.
///
/// # Errors
/// Where it is none.
pub fn validity_of(certificate: &[u8]) -> Result<(i64, i64), PkiError> {
    let parsed = parsed(certificate)?;
    let validity = parsed.validity();
    Ok((
        validity.not_before.timestamp() + CLOCKS.as_secs() as i64,
        validity.not_after.timestamp(),
    ))
}

/// Writes a file that nobody else may read, whole or not at all.
///
/// # Errors
/// Of the file.
pub fn write_secret(path: &Path, octets: &[u8]) -> Result<(), PkiError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        // What an earlier one left half done, or a link that somebody put there: it is not followed.
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(octets)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|error| PkiError::File {
        path: path.display().to_string(),
        error,
    })
}

/// Makes a folder that nobody else may look into, and those above it; one that is there stays as it is.
///
/// # Errors
/// Of the folder.
pub fn create_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Takes a folder and what it has of these files from everybody but their owner, whatever made them wider, and says so in the log. What is
/// not there, or is a symbolic link, stays as it is.
pub fn keep_private(folder: &Path, files: &[&str]) {
    let files = files.iter().map(|file| folder.join(file));
    for path in std::iter::once(folder.to_owned()).chain(files) {
        let Ok(there) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let mode = there.permissions().mode() & 0o7777;
        if there.is_symlink() || mode & 0o077 == 0 {
            continue;
        }
        let path_shown = path.display();
        let narrow = mode & 0o700;
        match std::fs::set_permissions(&path, std::fs::Permissions::from_mode(narrow)) {
            Ok(()) => warn!(
                "others could use {path_shown} (mode {mode:04o}): it is its owner's alone now ({narrow:04o}). Where somebody may have read \
                 a key or a token there, make new ones"
            ),
            Err(error) => error!(
                "others can use {path_shown} (mode {mode:04o}), and that cannot be changed: {error}"
            ),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// Of the file.
pub fn read_file(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|error| PkiError::File {
        path: path.display().to_string(),
        error,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn a_certificate_says_who_it_is_for_and_nothing_that_was_asked_for_besides() {
        let (key, certificate) = Authority::create("lab").unwrap();
        let authority = Authority::load("lab", &key, &certificate).unwrap();
        let (_, request) = request(None).unwrap();
        let day = Duration::from_secs(86_400);
        let signed = authority.sign("a1", &request, day).unwrap();
        let who = identity(&signed).unwrap();
        assert_eq!((who.domain.as_str(), who.router.as_str()), ("lab", "a1"));
        let (from, until) = validity_of(&signed).unwrap();
        assert_eq!(until - from, day.as_secs() as i64);
        let (server, _) = authority
            .server(&["10.0.0.1".into(), "ctl".into()])
            .unwrap();
        assert!(identity(&server).is_err() && domain(&server).is_err());
        let (controller, _) = authority.controller().unwrap();
        assert_eq!(domain(&controller).unwrap(), "lab");
        assert!(identity(&controller).is_err() && domain(&signed).is_err());
        assert!(authority.sign("a1", &request[..40], day).is_err());
    }
}
