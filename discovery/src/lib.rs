//! Service discovery: the controller of a domain with its datastore, and the client in the router.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | what a domain is made of |
//! | [`store`] | where that is kept |
//! | [`database`] | the one place where it changes |
//! | [`operations`] | what may be changed, and how |
//! | [`view`] | what one router sees of it |
//! | [`pki`] | the domain's authority, certificates, tokens |
//! | [`tls`] | connections that prove who is at either end |
//! | [`controller`] | the server: gRPC for routers, REST for people |
//! | [`source`] | where routers without a controller learn of each other |
//! | [`client`] | the router's side: joining, registering, following |

pub mod client;
pub mod controller;
pub mod database;
mod etcd;
pub mod model;
pub mod operations;
pub mod pki;
pub mod source;
pub mod store;
pub mod tls;
pub mod view;

/// The protocol between router and controller, as made from `proto/`.
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
