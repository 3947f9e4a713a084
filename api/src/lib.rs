//! The REST API of a router: its types, the OpenAPI document, the server and a client.
//!
//! The server ([`router`]) answers from any [`RouterState`]; it checks every query before that sees it, and answers a
//! bad one with a problem document (RFC 9457) that says what was found and what is allowed. Reasons are data: why a
//! path lost or a route is not in the kernel is a word for programs ([`types::Why::code`]) with a text for humans.

mod access;
mod address;
pub mod bounds;
mod client;
mod guard;
mod listen;
mod metrics;
mod openapi;
mod problem;
mod query;
mod server;
pub mod token;
pub mod types;

#[cfg(test)]
mod tests;

pub use access::{Known, Role, Secure, Tokens, certificate_fingerprint, share};
pub use address::{Address, Listener, SOCKET};
pub use client::{Client, ClientError, Secrets};
pub use listen::serve;
pub use openapi::document;
pub use problem::{InvalidField, InvalidParameter, Problem};
pub use query::{KernelQuery, RouteQuery, TenantRouteQuery, TraceQuery};
pub use server::{RouterState, Unavailable, router};
