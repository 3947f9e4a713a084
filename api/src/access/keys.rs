//! The certificate and the key of a port with TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::info;

use super::fresh::{Stamp, read, stamp};
use crate::token::sha256;

/// A certificate and its key, in files. What changes in them holds from the next look on; what cannot be read then changes nothing.
pub(super) struct Keys {
    certificate: PathBuf,
    key: PathBuf,
    stamps: [Option<Stamp>; 2],
    acceptor: Option<TlsAcceptor>,
}

impl Keys {
    /// Of these files, PEM: the certificate with those that have signed it behind it. Nothing is read yet.
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            stamps: [None; 2],
            acceptor: None,
        }
    }

    /// What takes connections, where there has been a good pair of files; and what is wrong with the files where they have changed since the
    /// last look.
    pub(super) fn look(&mut self) -> (Option<TlsAcceptor>, Option<Result<(), String>>) {
        let stamps = [&self.certificate, &self.key].map(|path| stamp(path).ok());
        let mut changed = None;
        if stamps != self.stamps || stamps.contains(&None) {
            self.stamps = stamps;
            changed = Some(match acceptor(&self.certificate, &self.key) {
                Ok(fresh) => {
                    if self.acceptor.replace(fresh).is_some() {
                        let file = self.certificate.display();
                        info!("the API's certificate is another one: {file}");
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        (self.acceptor.clone(), changed)
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let octets = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let chain = CertificateDer::pem_slice_iter(&octets).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("{}: {error}", path.display()))?;
    match chain.is_empty() {
        true => Err(format!("{}: there is no certificate in it", path.display())),
        false => Ok(chain),
    }
}

/// What tokens have of a certificate: SHA-256 of the last one in its file, in hexadecimal. That is the authority's where it is there, else
/// the certificate's own.
///
/// # Errors
/// Where there is none.
pub fn certificate_fingerprint(path: &Path) -> Result<String, String> {
    let chain = chain(path)?;
    Ok(chain.last().map(|last| sha256(last)).unwrap_or_default())
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = chain(certificate)?;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", key.display());
    let private = read(key).map_err(|error| wrong(&error))?;
    let private = PrivateKeyDer::from_pem_slice(&private).map_err(|error| wrong(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| format!("{} with {}: {error}", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
