//! Service discovery: the controller of a domain with its datastore, and the client in the router.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | what a domain is made of |
//! | [`store`] | where that is kept |
//! | [`database`] | the one place where it changes |
//! | [`operations`] | what may be changed, and how |
//! | [`view`] | what one router sees of it |
//! | [`exchange`] | what domains tell each other |
//! | [`pki`] | the domain's authority, certificates, tokens |
//! | [`tls`] | connections that prove who is at either end |
//! | [`controller`] | the server: gRPC for routers, REST for people |
//! | [`source`] | where routers without a controller learn of each other |
//! | [`client`] | the router's side: joining, registering, following |

pub mod client;
pub mod controller;
pub mod database;
mod etcd;
pub mod exchange;
pub mod model;
pub mod operations;
pub mod pki;
pub mod source;
pub mod store;
pub mod tls;
pub mod view;

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

#[cfg(test)]
mod tests;
