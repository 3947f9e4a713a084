//! What a TCP port takes that other hosts reach: TLS, and tokens.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::fresh::Fresh;
use super::keys::Keys;
use super::tokens::{Known, Tokens};
use crate::token::TokenText;

/// Files with a certificate, its key, and tokens, which are looked at for each connection and request. Without a certificate there is no
/// connection, without tokens nobody is answered; either is told in the log, and as [`Self::troubles`].
pub struct Secure {
    keys: Fresh<Option<TlsAcceptor>>,
    tokens: Fresh<Tokens>,
    troubles: Arc<[Trouble; 2]>,
    /// The certificate that was good last, for when its files do not answer.
    last: Mutex<Option<TlsAcceptor>>,
}

/// What is wrong with files, as far as it was seen last.
#[derive(Debug, Default)]
struct Trouble(Mutex<(Option<String>, bool)>);

impl Trouble {
    /// What a look at them has found; `then` says what follows where that is an error.
    fn found(&self, then: &str, found: Result<(), String>) {
        let mut held = self.held();
        let before = std::mem::replace(&mut held.0, found.err());
        match &held.0 {
            Some(why) if before != held.0 => error!("the API {then}: {why}"),
            None if before.is_some() => info!("the API's files are as they should be again"),
            _ => {}
        }
    }

    /// They answered, or did not.
    fn answered(&self, then: &str, answered: bool) {
        let mut held = self.held();
        if held.1 == answered {
            held.1 = !answered;
            match answered {
                true => info!("the disk that the API's files are on answers again"),
                false => error!("the API {then}: {SILENT}"),
            }
        }
    }

    fn shown(&self) -> Option<String> {
        let held = self.held();
        held.0.clone().or(held.1.then(|| SILENT.to_owned()))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, (Option<String>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_KEYS: &str = "goes on with the certificate that it has, if any";
const NO_TOKENS: &str = "answers nobody at its port";
const SILENT: &str = "the disk that its files are on does not answer";

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secure({:?})", self.troubles)
    }
}

impl Secure {
    /// Of these files: certificates and key as PEM, tokens as [`Tokens`]. What is wrong with them keeps nobody from starting.
    ///
    /// # Errors
    /// Where there is no thread that looks at them.
    pub fn open(certificate: PathBuf, key: PathBuf, tokens: PathBuf) -> io::Result<Self> {
        let troubles: Arc<[Trouble; 2]> = Arc::default();
        let mut keys = Keys::new(certificate, key);
        let seen = troubles.clone();
        let keys = Fresh::start("weft-api-keys", move || {
            let (acceptor, changed) = keys.look();
            if let Some(found) = changed {
                let hint = "`weft api certificate` makes one";
                let found = found.map_err(|error| format!("{error} ({hint})"));
                seen[0].found(NO_KEYS, found);
            }
            acceptor
        })?;
        let mut held = Tokens::new(tokens);
        let seen = troubles.clone();
        let tokens = Fresh::start("weft-api-tokens", move || {
            if let Some(found) = held.look() {
                let hint = "`weft api token create` makes the first";
                let found = found.map_err(|error| format!("{error} ({hint})"));
                seen[1].found(NO_TOKENS, found);
            }
            held.clone()
        })?;
        Ok(Self {
            keys,
            tokens,
            troubles,
            last: Mutex::default(),
        })
    }

    /// What is wrong with the files, where something is.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.iter().filter_map(Trouble::shown).collect()
    }

    /// What takes connections, where there is a certificate.
    pub(crate) async fn acceptor(&self) -> Option<TlsAcceptor> {
        let found = self.keys.get().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.troubles[0].answered(NO_KEYS, found.is_some());
        if let Some(acceptor) = found {
            *last = acceptor;
        }
        last.clone()
    }

    /// Whom a token shows.
    pub(super) async fn check(&self, shown: &TokenText) -> Option<Known> {
        let tokens = self.tokens.get().await;
        self.troubles[1].answered(NO_TOKENS, tokens.is_some());
        tokens?.check(shown)
    }
}
