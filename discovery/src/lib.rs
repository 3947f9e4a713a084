//! Service discovery: the controller of a domain with its datastore, and the client in the router.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | what a domain is made of |
//! | [`model::State`] | all of it at a revision, with what it is looked up by |
//! | [`store`] | where that is kept |
//! | [`database`] | the one place where it changes |
//! | [`operations`] | what may be changed, and how |
//! | [`attachments`] | what a tenant has at a router |
//! | [`grants`] | which interfaces a tenant's administrators may use |
//! | [`quotas`] | how much a tenant may have |
//! | [`session_keys`] | what sessions between its routers are signed with |
//! | [`view`] | what one router sees of it |
//! | [`exchange`] | what domains tell each other |
//! | [`pki`] | the domain's authority, certificates, tokens |
//! | [`tls`] | connections that prove who is at either end |
//! | [`controller`] | the server: gRPC for routers, REST for people |
//! | [`source`] | where routers without a controller learn of each other |
//! | [`client`] | the router's side: joining, registering, following |

pub mod attachments;
pub mod chains;
pub mod client;
pub mod controller;
pub mod database;
mod etcd;
pub mod exchange;
pub mod grants;
pub mod model;
pub mod operations;
mod origins;
pub mod pki;
pub mod quotas;
pub mod session_keys;
pub mod source;
mod state;
pub mod store;
pub mod tls;
pub mod view;

pub use etcd::EtcdTls;

/// What an error comes from in the end: the layers above say "transport error".
fn cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// Why a call failed: in the other end's words, or how the connection broke.
fn words(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(error) => in_words(cause(error)),
        None => status.message().to_owned(),
    }
}

/// An error, with what the runtime says of its clock as people say it.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.to_string() {
        text if text == "deadline has elapsed" => "no answer in time".to_owned(),
        text => text,
    }
}

/// A duration as people write it: a number and s, m, h or d.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is no duration: a number and s, m, h or d, such as 90s or 1h");
    let split = text
        .find(|char: char| !char.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .map(std::time::Duration::from_secs)
        .ok_or_else(wrong)
}

/// The protocols between router and controller, and between controllers of domains, as made from `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "made from the protocol's files, where the words are"
)]
pub mod proto {
    tonic::include_proto!("weft.discovery.v1");
}

/// The protocol of people and their programs, as made from `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "made from the protocol's files, where the words are"
)]
pub mod management_proto {
    tonic::include_proto!("weft.management.v1");
}

#[cfg(test)]
mod tests;
