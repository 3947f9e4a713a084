//! HTTP over TLS, to a router whose certificate is that of a token, or of an authority in a file.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError,
    OtherError, RootCertStore, SignatureScheme, StreamOwned,
};
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::unix::{left, named};
use crate::token::sha256;

/// Whom a client takes for the router.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Whom one of these authorities (PEM) has signed, by the name that it is asked by.
    Authorities(String),
    /// Who has the certificate with this SHA-256, in hexadecimal, or one of the name that it is asked by that this one has signed.
    Fingerprint(String),
}

/// An agent whose connections are TLS, whatever its URLs say.
pub(super) fn agent(config: Config, trust: Trust) -> Result<ureq::Agent, String> {
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new(trust, provider.clone())?;
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let connector = Tls(Arc::new(tls));
    Ok(ureq::Agent::with_parts(
        config,
        connector,
        DefaultResolver::default(),
    ))
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

fn webpki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())
}

impl Verifier {
    fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let roots = match &trust {
            Trust::Fingerprint(_) => None,
            Trust::Authorities(text) => {
                let mut roots = RootCertStore::empty();
                for one in CertificateDer::pem_slice_iter(text.as_bytes()) {
                    let one = one.map_err(|error| error.to_string())?;
                    roots.add(one).map_err(|error| error.to_string())?;
                }
                Some(webpki(roots, &provider)?)
            }
        };
        Ok(Self {
            trust,
            roots,
            provider,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let fingerprint = match (&self.trust, &self.roots) {
            (Trust::Fingerprint(fingerprint), _) => fingerprint,
            (_, Some(roots)) => {
                return roots.verify_server_cert(end_entity, intermediates, name, ocsp, now);
            }
            (_, None) => {
                return Err(TlsError::InvalidCertificate(
                    CertificateError::UnknownIssuer,
                ));
            }
        };
        let shown = sha256(end_entity);
        if shown == *fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        let authority = intermediates.iter().find(|one| sha256(one) == *fingerprint);
        let Some(authority) = authority else {
            let other = Other(format!(
                "its certificate ({shown}) is not the one that the token names ({fingerprint}): it was made anew, which takes a new token, or \
                 this is another router"
            ));
            return Err(TlsError::Other(OtherError(Arc::new(other))));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let roots = webpki(roots, &self.provider).map_err(TlsError::General)?;
        roots.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Other(String);

#[derive(Debug)]
struct Tls(Arc<ClientConfig>);

impl Connector<()> for Tls {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HostNotFound)?;
        let mut last = Error::ConnectionFailed;
        for address in details.addrs.iter() {
            let stream = match left(details.timeout) {
                Some(left) => TcpStream::connect_timeout(address, left),
                None => TcpStream::connect(address),
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    last = named(error, details.timeout);
                    continue;
                }
            };
            let session = ClientConnection::new(self.0.clone(), name)
                .map_err(|error| Error::Io(std::io::Error::other(error)))?;
            return Ok(Some(Connection {
                stream: StreamOwned::new(session, stream),
                buffers: LazyBuffers::new(
                    details.config.input_buffer_size(),
                    details.config.output_buffer_size(),
                ),
            }));
        }
        Err(last)
    }
}

struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    fn limit(&self, left: Option<Duration>) -> std::io::Result<()> {
        // A handshake reads where something is to be written.
        self.stream.sock.set_write_timeout(left)?;
        self.stream.sock.set_read_timeout(left)
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.limit(left(timeout))?;
        let output = &self.buffers.output()[..amount];
        let written = self.stream.write_all(output);
        written
            .and_then(|()| self.stream.flush())
            .map_err(|error| named(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let end = left(timeout).map(|left| Instant::now() + left);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::Timeout(timeout.reason));
            }
            self.limit(left)?;
            let input = self.buffers.input_append_buf();
            match self.stream.read(input) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                // A signal: the time that is left is less.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(error, timeout)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // A command asks a few times at most: each has a connection of its own.
        false
    }
}
