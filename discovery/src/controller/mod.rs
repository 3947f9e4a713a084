//! The server of a domain: one port, where routers speak gRPC with certificates, and people REST with tokens.
//!
//! | module | what it is |
//! |---|---|
//! | [`hub`] | the routers that are attached, what each holds, leases |
//! | [`exchange`] | what other domains are told, and what they tell |
//! | [`management`] | what people and their programs may ask for |
//! | [`rest`] | that over HTTP, and its document |
//! | [`grpc`] | the same over gRPC, and the protocol of routers |
//! | [`metrics`] | what can be counted |
//! | [`listen`] | connections |
//! | [`audit`] | who did what, in the log |

mod audit;
pub mod exchange;
mod grpc;
pub mod hub;
mod listen;
mod management;
mod metrics;
pub mod rest;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::info;
use weft_api::bounds::{self, Answers};

use crate::EtcdTls;
use crate::database::{Database, Rejection};
use crate::exchange::Introduction;
use crate::model::{Domain, Scope};
use crate::operations::{self, NewToken};
use crate::pki::{
    self, Authority, PkiError, TokenText, create_private_folder, read_file, sha256, write_secret,
};
use crate::store::{Etcd, Redb, StoreError};
use audit::Audit;
use exchange::Exchange;
use hub::Hub;

/// What the controller's folder holds beside the datastore.
const AUTHORITY_KEY: &str = "authority.key";
const AUTHORITY: &str = "authority.pem";
const SETTINGS: &str = "controller.json";
const OPERATOR: &str = "operator.token";
const DATASTORE: &str = "domain.redb";
const DOMAIN: &str = "domain";

/// Octets of answers that wait to be taken.
const ANSWERS: u32 = 256 << 20;

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The datastore.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A change that the start needs.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A file or socket.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        error: std::io::Error,
    },
    /// Its settings.
    #[error("{0}")]
    Settings(String),
}

/// Where a controller is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names and addresses that it is reached by: its certificate is for them.
    pub names: Vec<String>,
    /// The members of the etcd cluster that the domain is kept in; in a file of the folder without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub etcd: Vec<String>,
    /// Files for members at `https://`.
    #[serde(default, skip_serializing_if = "EtcdTls::is_empty")]
    pub etcd_tls: EtcdTls,
}

impl Settings {
    /// The names with a port, `HOST:PORT`.
    pub fn reached(&self, port: u16) -> Vec<String> {
        let names = self.names.iter().map(|name| match name.parse() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{name}:{port}"),
        });
        names.collect()
    }
}

/// The files of a controller.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at this path, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The authority's certificate, PEM: what clients trust.
    pub fn authority(&self) -> PathBuf {
        self.0.join(AUTHORITY)
    }

    /// The first operator's token.
    pub fn operator(&self) -> PathBuf {
        self.0.join(OPERATOR)
    }

    /// Nobody but the owner uses it. The authority's certificate is no secret: who gave it to others may.
    fn keep_private(&self) {
        let secrets = [AUTHORITY_KEY, SETTINGS, OPERATOR, DATASTORE, DOMAIN];
        pki::keep_private(&self.0, &secrets);
    }

    /// Its settings.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn settings(&self) -> Result<Settings, ControllerError> {
        let text = read_file(&self.0.join(SETTINGS))?;
        serde_json::from_str(&text)
            .map_err(|error| ControllerError::Settings(format!("{SETTINGS}: {error}")))
    }

    /// Makes a domain: its authority, its datastore, its first operator's token.
    ///
    /// # Errors
    /// Where there is one, or its numbers make no sense.
    pub async fn create(&self, domain: Domain, settings: &Settings) -> Result<(), ControllerError> {
        create_private_folder(&self.0).map_err(|error| ControllerError::Io {
            what: self.0.display().to_string(),
            error,
        })?;
        let path = self.0.join(AUTHORITY_KEY);
        if path.exists() {
            return Err(ControllerError::Settings(format!(
                "there is a domain in {}",
                self.0.display()
            )));
        }
        let (key, certificate) = Authority::create(&domain.name)?;
        let authority = Authority::load(&domain.name, &key, &certificate)?;
        // Before anything is written: a name that is none.
        authority.server(&settings.names)?;
        let database = self.open(settings, &domain.name).await?;
        let create = domain.clone();
        database
            .change("init", "create the domain", move |transaction| {
                operations::create_domain(transaction, &create)
            })
            .await?;
        let token = create_token(
            &database,
            &authority,
            "init",
            NewToken {
                scope: Scope::Operator,
                ttl: None,
                uses: None,
            },
        )
        .await?;
        database.close().await;
        let text = serde_json::to_string_pretty(settings)
            .map_err(|error| ControllerError::Settings(error.to_string()))?;
        write_secret(&self.0.join(DOMAIN), domain.name.as_bytes())?;
        write_secret(&self.0.join(SETTINGS), text.as_bytes())?;
        write_secret(&self.operator(), format!("{token}\n").as_bytes())?;
        write_secret(&self.authority(), certificate.as_bytes())?;
        // Last: with it the domain is whole.
        write_secret(&path, key.as_bytes())?;
        Ok(())
    }

    /// Makes a token in the folder itself, before its controller runs; `None` where one runs: ask that.
    ///
    /// # Errors
    /// Where there is no domain, or what the token is for is not there.
    pub async fn create_token(&self, new: NewToken) -> Result<Option<TokenText>, ControllerError> {
        if !self.settings()?.etcd.is_empty() {
            return Ok(None);
        }
        let Some(store) = Redb::try_open(&self.0.join(DATASTORE))? else {
            return Ok(None);
        };
        let database = Database::start(store).await?;
        let name = self.domain()?;
        let authority = self.load(&name)?;
        let token = create_token(&database, &authority, "init", new).await;
        database.close().await;
        Ok(Some(token?))
    }

    /// The domain's datastore.
    async fn open(&self, settings: &Settings, domain: &str) -> Result<Database, StoreError> {
        if settings.etcd.is_empty() {
            return Database::start(Redb::open(&self.0.join(DATASTORE))?).await;
        }
        let store = Etcd::connect(
            &settings.etcd,
            &settings.etcd_tls,
            &format!("/weft/{domain}"),
        )?;
        Database::start(store).await
    }

    /// The domain's name.
    fn domain(&self) -> Result<String, ControllerError> {
        Ok(read_file(&self.0.join(DOMAIN))?.trim().to_owned())
    }

    fn load(&self, domain: &str) -> Result<Authority, ControllerError> {
        let key = read_file(&self.0.join(AUTHORITY_KEY))?;
        let certificate = read_file(&self.authority())?;
        Ok(Authority::load(domain, &key, &certificate)?)
    }
}

/// Makes a token and gives its text, which nobody will see again.
async fn create_token(
    database: &Database,
    authority: &Authority,
    actor: &str,
    new: NewToken,
) -> Result<TokenText, Rejection> {
    let token = TokenText::create(authority.fingerprint());
    let (id, hash) = (token.id.clone(), sha256(token.secret.as_bytes()));
    let by = actor.to_owned();
    let what = format!("create the token {id}");
    let create = move |transaction: &mut crate::database::Transaction<'_>| {
        operations::create_token(transaction, &id, &hash, &new, &by)
    };
    database.change(actor, what, create).await?;
    Ok(token)
}

/// The controller of a domain.
pub struct Controller {
    database: Database,
    authority: Authority,
    hub: Hub,
    exchange: Exchange,
    introduction: Introduction,
    audit: Audit,
    rates: management::Rates,
    shares: management::Shares,
    /// When the certificate ends that the controller shows, s since 1970.
    until: AtomicI64,
}

impl Controller {
    /// When the certificate ends that the controller shows, s since 1970.
    fn certificate_end(&self) -> i64 {
        self.until.load(Ordering::Relaxed)
    }

    /// Who the domain is.
    fn domain(&self) -> Option<Domain> {
        self.database.state().domain().cloned()
    }
}

/// Serves a domain until `stop` resolves; `ready` is told where it listens.
///
/// # Errors
/// Where its files or its port are not as they should be.
pub async fn serve(
    folder: &Folder,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ControllerError> {
    folder.keep_private();
    let settings = folder.settings()?;
    let name = folder.domain()?;
    let database = folder.open(&settings, &name).await?;
    let state = database.state();
    if state.domain().is_none_or(|domain| domain.name != name) {
        return Err(ControllerError::Settings(format!(
            "the datastore does not hold domain {name}"
        )));
    }
    let io = |error| ControllerError::Io {
        what: settings.listen.to_string(),
        error,
    };
    let listener = TcpListener::bind(settings.listen).await.map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let authority = folder.load(&name)?;
    let controller = Arc::new(Controller {
        introduction: Introduction {
            domain: name.clone(),
            controllers: settings.reached(address.port()),
            fingerprint: authority.fingerprint(),
        },
        authority,
        hub: Hub::new(database.clone()),
        exchange: Exchange::default(),
        audit: Audit::default(),
        rates: management::Rates::default(),
        shares: management::Shares::default(),
        until: AtomicI64::new(0),
        database,
    });
    info!(domain = name, %address, revision = state.revision, "controller started");
    ready(address);
    let app = rest::router(controller.clone()).merge(grpc::router(controller.clone())?);
    let app = bounds::bodies(app, listen::streams);
    let app = bounds::answers(app, Answers::new(ANSWERS), listen::lasts);
    let app = audit::audited(app, controller.clone());
    let follow = controller.hub.follow();
    let exchange = exchange::run(controller.clone());
    tokio::select! {
        error = listen::serve(listener, &controller, &settings.names, app) => Err(error),
        () = follow => Ok(()),
        () = exchange => Ok(()),
        () = stop => Ok(()),
    }
}
