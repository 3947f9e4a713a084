//! The router's side: joining a domain, and following what the controller says.

mod backoff;
pub(crate) mod connect;
mod follow;
mod rest;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use weft_overlay::words;

pub(crate) use self::backoff::Backoff;
pub use self::connect::PORT;
#[cfg(test)]
pub(crate) use self::connect::connect;
pub(crate) use self::connect::connect_any;
pub use self::follow::{Client, Event, Question};
pub use self::rest::{Connection, Rest};
use crate::pki::{self, PkiError, TokenText, read_file, validity_of, write_secret};
use crate::proto::discovery_client::DiscoveryClient;
use crate::proto::{JoinRequest, RenewRequest, Update};
use crate::tls::{self, ForeignAuthority, Trust};
use crate::view::{LARGEST, View};

/// What a membership's folder holds.
const MEMBER: &str = "member.json";
const KEY: &str = "router.key";
const CERTIFICATE: &str = "router.der";
const AUTHORITY: &str = "authority.der";
const GENERATION: &str = "generation";
const VIEW: &str = "view";

/// Why a router is not in its domain.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A key, a certificate or a file.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The controller cannot be reached.
    #[error("controller {address}: {error}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        error: String,
    },
    /// It is there, and the connection with it broke, or never became one: nobody knows what it has heard.
    #[error("controller {address}: {error}")]
    Broken {
        /// Where it is.
        address: String,
        /// How.
        error: String,
    },
    /// It is another domain's.
    #[error("controller {address}: {foreign}")]
    Foreign {
        /// Where it is.
        address: String,
        /// Whose.
        foreign: ForeignAuthority,
    },
    /// It knows no such router.
    #[error("the controller refuses: {0}")]
    Removed(String),
    /// It said no.
    #[error("the controller refuses: {0}")]
    Refused(String),
    /// What is in the folder.
    #[error("{0}")]
    Folder(String),
}

/// What a router has from its domain: who it is, and how it proves that.
#[derive(Clone, Debug)]
pub struct Membership {
    folder: PathBuf,
    member: Member,
    key: String,
    certificate: Vec<u8>,
    authority: Vec<u8>,
    age: Age,
}

/// When a certificate is to be renewed, and when it ends, by a clock that nobody sets: the wall clock of the router, and the
/// controller's, may be days off, or jump.
#[derive(Clone, Copy, Debug)]
struct Age {
    renew: Instant,
    end: Instant,
}

impl Age {
    /// Of a certificate that has just been made.
    fn new(certificate: &[u8]) -> Self {
        Self::of(certificate, Duration::ZERO)
    }

    /// Of one that was made some time ago, by the wall clock: where that says what cannot be, it is renewed too early, or
    /// because the controller does not take it any more.
    fn found(certificate: &[u8]) -> Self {
        let now = crate::model::now() as i64 / 1000;
        let made = validity_of(certificate).map_or(now, |(from, _)| from);
        let age = u64::try_from(now - made).unwrap_or(0);
        Self::of(certificate, Duration::from_secs(age))
    }

    fn of(certificate: &[u8], age: Duration) -> Self {
        let life = validity_of(certificate).map_or(0, |(from, until)| until - from);
        let life = Duration::from_secs(u64::try_from(life).unwrap_or(0));
        let now = Instant::now();
        Self {
            renew: now + (life * 2 / 3).saturating_sub(age),
            end: now + life.saturating_sub(age),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    name: String,
    domain: String,
    controller: String,
}

/// What a router says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// BGP Identifier; the controller's choice where absent.
    pub router_id: Option<std::net::Ipv4Addr>,
    /// Where neighbours connect to.
    pub bgp_address: IpAddr,
    /// Where tunnels end.
    pub endpoint: IpAddr,
    /// What is accepted there, the preferred one first.
    pub encapsulations: Vec<String>,
    /// Mbit/s; 0 where it is not said.
    pub capacity: u32,
    /// It signs its sessions with keys that the controller makes.
    pub session_keys: bool,
}

/// What a controller said that did not do it; or that nobody knows whether it did, since the connection broke.
pub(crate) fn failed(address: &str, status: &tonic::Status) -> ClientError {
    use tonic::Code;
    let error = crate::words(status);
    match status.code() {
        Code::NotFound => ClientError::Removed(error),
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => ClientError::Refused(error),
        _ => ClientError::Broken {
            address: address.to_owned(),
            error,
        },
    }
}

impl Membership {
    /// Joins a domain with a token, and keeps what came of it in a folder.
    ///
    /// # Errors
    /// Where the controller is not there or not the token's, or the token is not good; where a router cannot have the name.
    pub async fn join(
        controller: &str,
        token: &TokenText,
        name: &str,
        folder: &Path,
    ) -> Result<Self, ClientError> {
        words::name(name).map_err(|expected| {
            ClientError::Folder(format!("`{}` is not {expected}", name.escape_debug()))
        })?;
        pki::create_private_folder(folder)
            .map_err(|error| ClientError::Folder(format!("{}: {error}", folder.display())))?;
        // A router that tries again has the key that it had.
        let known = read_file(&folder.join(KEY)).ok();
        let (key, request) = pki::request(known.as_deref())?;
        write_secret(&folder.join(KEY), key.as_bytes())?;
        let trust = Trust::Fingerprint(token.fingerprint.clone());
        let channel = connect_any(controller, 0, &tls::client(&trust, None)?).await?;
        let request = JoinRequest {
            token_id: token.id.clone(),
            secret: token.secret.clone(),
            name: name.to_owned(),
            certificate_request: request,
        };
        let identity = DiscoveryClient::new(channel).join(request).await;
        let identity = identity
            .map_err(|status| failed(controller, &status))?
            .into_inner();
        if pki::sha256(&identity.authority) != token.fingerprint {
            return Err(ClientError::Refused(
                "its authority is not the token's".into(),
            ));
        }
        let membership = Self {
            folder: folder.to_owned(),
            member: Member {
                name: name.to_owned(),
                domain: identity.domain,
                controller: controller.to_owned(),
            },
            key,
            age: Age::new(&identity.certificate),
            certificate: identity.certificate,
            authority: identity.authority,
        };
        membership.write()?;
        Ok(membership)
    }

    fn write(&self) -> Result<(), ClientError> {
        let file = |name: &str| self.folder.join(name);
        write_secret(&file(AUTHORITY), &self.authority)?;
        write_secret(&file(CERTIFICATE), &self.certificate)?;
        let member = serde_json::to_vec(&self.member);
        let member = member.map_err(|error| ClientError::Folder(error.to_string()))?;
        // Last: with it the membership is whole.
        Ok(write_secret(&file(MEMBER), &member)?)
    }

    /// What an earlier start has joined; `None` where none has.
    ///
    /// # Errors
    /// Where what is there cannot be read.
    pub fn load(folder: &Path) -> Result<Option<Self>, ClientError> {
        pki::keep_private(folder, &[MEMBER, KEY, CERTIFICATE, GENERATION, VIEW]);
        let member = folder.join(MEMBER);
        let there = member.try_exists().map_err(|error| {
            ClientError::Folder(format!(
                "{}: {error}; what root has joined is root's: `chown -R USER {}` gives it to the router's user",
                member.display(),
                folder.display()
            ))
        })?;
        if !there {
            return Ok(None);
        }
        let octets = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path)
                .map_err(|error| ClientError::Folder(format!("{}: {error}", path.display())))
        };
        let member = serde_json::from_slice(&octets(MEMBER)?)
            .map_err(|error| ClientError::Folder(format!("{MEMBER}: {error}")))?;
        let certificate = octets(CERTIFICATE)?;
        Ok(Some(Self {
            folder: folder.to_owned(),
            member,
            key: read_file(&folder.join(KEY))?,
            age: Age::found(&certificate),
            certificate,
            authority: octets(AUTHORITY)?,
        }))
    }

    /// The router's name.
    pub fn name(&self) -> &str {
        &self.member.name
    }

    /// The domain's name.
    pub fn domain(&self) -> &str {
        &self.member.domain
    }

    /// The folder that it is kept in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHA-256 of the certificate of the domain's authority, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        pki::sha256(&self.authority)
    }

    /// The same, at a controller somewhere else.
    #[must_use]
    pub fn at(mut self, controller: &str) -> Self {
        controller.clone_into(&mut self.member.controller);
        self
    }

    /// Where the controller is.
    pub fn controller(&self) -> &str {
        &self.member.controller
    }

    /// One more than the last start that was noted.
    fn next_generation(&self) -> u64 {
        let last = read_file(&self.folder.join(GENERATION)).ok();
        let last: u64 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        last.saturating_add(1)
    }

    fn keep_generation(&self, generation: u64) -> Result<(), ClientError> {
        let path = self.folder.join(GENERATION);
        Ok(write_secret(&path, generation.to_string().as_bytes())?)
    }

    /// What the router ran last, and at which revision.
    pub fn last_view(&self) -> Option<(u64, View)> {
        let octets = std::fs::read(self.folder.join(VIEW)).ok()?;
        let update = Update::decode(octets.as_slice()).ok()?;
        Some((update.revision, update.put))
    }

    /// Joins the domain again, with another token: as the router that it was, where its key is good for that.
    pub(crate) async fn rejoin(&mut self, token: &TokenText) -> Result<(), ClientError> {
        let joined = Self::join(self.controller(), token, self.name(), &self.folder).await?;
        *self = joined;
        Ok(())
    }

    fn keep_view(&self, revision: u64, view: &View) -> Result<(), ClientError> {
        let update = Update {
            revision,
            put: view.clone(),
            removed: Vec::new(),
        };
        Ok(write_secret(
            &self.folder.join(VIEW),
            &update.encode_to_vec(),
        )?)
    }

    /// A connection with the certificate: to the first controller that is there, from this one of them on.
    async fn connect(&self, first: usize) -> Result<DiscoveryClient<Channel>, ClientError> {
        let key = pki::private_key(&self.key)?;
        let trust = Trust::Authority(self.authority.clone());
        let tls = tls::client(&trust, Some((&[&self.certificate], &key)))?;
        let channel = connect_any(self.controller(), first, &tls).await?;
        Ok(DiscoveryClient::new(channel).max_decoding_message_size(LARGEST))
    }

    /// How long until two thirds of the certificate's life are over.
    fn renew_in(&self) -> Duration {
        self.age.renew.saturating_duration_since(Instant::now())
    }

    fn is_over(&self) -> bool {
        self.age.end <= Instant::now()
    }

    /// Gets a fresh certificate, with the key that the router joined with.
    pub(crate) async fn renew(&mut self) -> Result<(), ClientError> {
        let (_, request) = pki::request(Some(&self.key))?;
        let trust = Trust::Authority(self.authority.clone());
        let channel = connect_any(self.controller(), 0, &tls::client(&trust, None)?).await?;
        let request = RenewRequest {
            certificate_request: request,
            name: self.name().to_owned(),
        };
        let identity = DiscoveryClient::new(channel).renew(request).await;
        let identity = identity.map_err(|status| failed(self.controller(), &status))?;
        self.certificate = identity.into_inner().certificate;
        self.age = Age::new(&self.certificate);
        self.write()
    }
}
