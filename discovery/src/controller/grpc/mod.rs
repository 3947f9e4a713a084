//! gRPC.
//!
//! | module | what it is |
//! |---|---|
//! | [`discovery`] | the protocol of routers |
//! | [`management`] | what people and their programs may ask for |
//! | [`messages`] | its messages |
//! | [`chains`] | those about services and chains |
//! | [`domains`] | those about other domains |

pub(super) use self::discovery::AbortOnDrop;

mod chains;
mod discovery;
mod domains;
mod management;
mod messages;

use std::sync::Arc;

use axum::Router;
use tonic::Status;

use super::{Controller, ControllerError};
use crate::database::Rejection;
use crate::management_proto::management_server::ManagementServer;
use crate::proto::discovery_server::DiscoveryServer;
use crate::view;

/// What a router holds that has thousands of neighbours, or a view of a domain that shares thousands of tenants.
pub(super) const LARGEST: usize = 16 << 20;

/// What there is to ask for, in the form that programs read.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors"));

/// # Errors
/// None that a controller can cause: what was compiled in is what it is.
pub(super) fn router(controller: Arc<Controller>) -> Result<Router, ControllerError> {
    let discovery = discovery::Server {
        controller: controller.clone(),
    };
    let discovery = DiscoveryServer::new(discovery)
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(view::LARGEST);
    let exchange = super::exchange::service(controller.clone());
    let management =
        ManagementServer::new(management::Server { controller }).max_encoding_message_size(LARGEST);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .map_err(|error| ControllerError::Settings(format!("the protocol's files: {error}")))?;
    // What nobody has is REST's to answer.
    Ok(tonic::service::Routes::new(discovery)
        .add_service(exchange)
        .add_service(management)
        .add_service(reflection)
        .into_axum_router()
        .reset_fallback())
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let text = rejection.to_string();
        match rejection {
            Rejection::NotFound(_) => Self::not_found(text),
            Rejection::Conflict(_) => Self::already_exists(text),
            Rejection::Precondition(_) => Self::failed_precondition(text),
            Rejection::Malformed(_) | Rejection::Invalid(_) | Rejection::Field { .. } => {
                Self::invalid_argument(text)
            }
            Rejection::TooMany(_) => Self::resource_exhausted(text),
            Rejection::Unauthenticated(_) => Self::unauthenticated(text),
            Rejection::Forbidden(_) => Self::permission_denied(text),
            Rejection::Unavailable(_) => Self::unavailable(text),
        }
    }
}
