//! Connections that prove who is at either end.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::pki::{PkiError, sha256};

/// What HTTP/2 is called in the handshake, and what HTTP/1.1 is.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// HTTP/2 among them (RFC 9113 section 3.1).
pub(crate) const HTTP2: &[u8] = b"h2";

fn wrong(error: impl std::fmt::Display) -> PkiError {
    PkiError::Invalid(error.to_string())
}

fn key(der: &[u8]) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::try_from(der.to_vec()).map_err(wrong)
}

fn roots(authority: &[u8]) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.to_vec().into()).map_err(wrong)?;
    Ok(Arc::new(roots))
}

/// The controller's end: with `certificate` (DER) and its key, and the authority's behind it for those who know no more of it than
/// its fingerprint. Who comes with a certificate has one of the authority's, or of the one that is brought along ([`signer`]); who
/// comes without one is let in, and may only join or show a token.
///
/// # Errors
/// Where one of them is not what it should be.
pub fn server(
    certificate: &[u8],
    private: &[u8],
    authority: &[u8],
) -> Result<ServerConfig, PkiError> {
    let provider = Arc::new(default_provider());
    let clients = Arc::new(Clients {
        own: authority.to_vec(),
        provider: provider.clone(),
    });
    let chain = [certificate, authority].map(|one| CertificateDer::from(one.to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.to_vec(), key(private)?)
        .map_err(wrong)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Who a client takes for the controller.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Whom this authority (DER) has signed.
    Authority(Vec<u8>),
    /// Whom the authority has signed whose certificate has this SHA-256, in hexadecimal: what a token knows.
    Fingerprint(String),
}

/// The client's end; `identity` is its certificate, with the authority's behind it where that is another domain's, and key, DER.
///
/// # Errors
/// Where one of them is not what it should be.
pub fn client(
    trust: &Trust,
    identity: Option<(&[&[u8]], &[u8])>,
) -> Result<ClientConfig, PkiError> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let trusted = Trusted {
        trust: trust.clone(),
        provider,
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusted));
    let mut config = match identity {
        Some((chain, private)) => {
            let chain = chain.iter().map(|one| CertificateDer::from(one.to_vec()));
            builder
                .with_client_auth_cert(chain.collect(), key(private)?)
                .map_err(wrong)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOLS[0].to_vec()];
    Ok(config)
}

/// The authority (DER) that has signed what a client showed: `own`, or the one that it brought along. That says only who it claims
/// to be: whether that authority is trusted is decided where the domain's records are, so that a decision holds from the moment that it
/// is made, and who is refused is told why.
pub fn signer<'a>(chain: &'a [CertificateDer<'_>], own: &'a [u8]) -> &'a [u8] {
    chain.get(1).map_or(own, AsRef::as_ref)
}

/// Takes a client whose certificate its [`signer`] has signed.
#[derive(Debug)]
struct Clients {
    own: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.first().map_or(&*self.own, AsRef::as_ref);
        let roots = roots(authority).map_err(|_| unknown())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|_| unknown())?;
        verifier.verify_client_cert(end_entity, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A server that another authority has signed than the one that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its authority is {shown}, and not {expected}")]
pub struct ForeignAuthority {
    /// The one that was shown: its name, and SHA-256 of its certificate in hexadecimal.
    pub shown: String,
    /// SHA-256 of the certificate of the one that was expected, in hexadecimal.
    pub expected: String,
}

impl ForeignAuthority {
    /// Whether an error comes from that.
    pub fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An I/O error tells of what it is made from by another way than others.
            let inside = error.downcast_ref::<std::io::Error>();
            let inside = inside.and_then(std::io::Error::get_ref);
            let tls = match inside {
                Some(inside) => inside.downcast_ref::<Error>(),
                None => error.downcast_ref::<Error>(),
            };
            if let Some(Error::Other(OtherError(other))) = tls {
                return other.downcast_ref();
            }
            next = error.source();
        }
        None
    }
}

/// Takes a server that the trusted authority has signed.
#[derive(Debug)]
struct Trusted {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Trusted {
    fn expected(&self) -> String {
        match &self.trust {
            Trust::Authority(authority) => sha256(authority),
            Trust::Fingerprint(fingerprint) => fingerprint.clone(),
        }
    }

    /// Whom this authority has signed.
    fn verifier(&self, authority: &[u8]) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let roots = roots(authority).map_err(|_| unknown())?;
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|_| unknown())
    }

    /// The server shows another authority, where it shows one.
    fn foreign(&self, chain: &[CertificateDer<'_>]) -> Option<Error> {
        let shown = chain.last()?;
        let fingerprint = sha256(shown);
        let expected = self.expected();
        if fingerprint == expected {
            return None;
        }
        let shown = match crate::pki::common_name(shown) {
            Some(name) => format!("`{name}` ({fingerprint})"),
            None => fingerprint,
        };
        let foreign = ForeignAuthority { shown, expected };
        Some(Error::Other(OtherError(Arc::new(foreign))))
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = match &self.trust {
            Trust::Authority(authority) => Some(authority.as_slice()),
            Trust::Fingerprint(fingerprint) => {
                let mut chain = intermediates.iter();
                chain
                    .find(|one| sha256(one) == *fingerprint)
                    .map(AsRef::as_ref)
            }
        };
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let verified = authority.ok_or_else(unknown).and_then(|authority| {
            // The authority is the root, and no link on the way to it.
            let verifier = self.verifier(authority)?;
            verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
        });
        verified.map_err(|error| match error {
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => self.foreign(intermediates).unwrap_or(error),
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
