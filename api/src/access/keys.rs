//! The certificate and the key of a port with TLS.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{error, info};

use super::tokens::stamp;
use crate::token::sha256;

type Stamp = (u64, u64, i64, i64);

/// A certificate and its key, in files. What changes in them holds from the next connection on; what cannot be read then changes nothing.
pub struct Keys {
    certificate: PathBuf,
    key: PathBuf,
    read: Mutex<Read>,
}

struct Read {
    stamps: [Option<Stamp>; 2],
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.certificate.display())
    }
}

impl Keys {
    /// Of these files, PEM: the certificate with those that have signed it behind it.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, String> {
        let stamps = [certificate, key].map(|path| stamp(path).ok());
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            read: Mutex::new(Read {
                stamps,
                acceptor: acceptor(certificate, key)?,
            }),
        })
    }

    /// What takes connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = [&self.certificate, &self.key].map(|path| stamp(path).ok());
        if stamps != read.stamps {
            read.stamps = stamps;
            match acceptor(&self.certificate, &self.key) {
                Ok(fresh) => {
                    info!("the API's certificate is another one: {self:?}");
                    read.acceptor = fresh;
                }
                // Half of it may have been written.
                Err(error) => error!("the API goes on with the certificate that it has: {error}"),
            }
        }
        read.acceptor.clone()
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(wrong)?;
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
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| format!("{} with {}: {error}", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
