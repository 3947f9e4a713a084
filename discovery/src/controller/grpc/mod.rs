//! gRPC.
//!
//! | module | what it is |
//! |---|---|
//! | [`discovery`] | the protocol of routers |

mod discovery;

use std::sync::Arc;

use axum::Router;
use tonic::Status;

use self::discovery::Server;
use super::Controller;
use crate::database::Rejection;
use crate::proto::discovery_server::DiscoveryServer;

/// A view of a router that has thousands of neighbours.
const LARGEST: usize = 16 << 20;

pub(super) fn router(controller: Arc<Controller>) -> Router {
    let discovery = DiscoveryServer::new(Server { controller })
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST);
    // What nobody has is REST's to answer.
    tonic::service::Routes::new(discovery)
        .into_axum_router()
        .reset_fallback()
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let text = rejection.to_string();
        match rejection {
            Rejection::NotFound(_) => Self::not_found(text),
            Rejection::Conflict(_) => Self::already_exists(text),
            Rejection::Precondition(_) => Self::failed_precondition(text),
            Rejection::Malformed(_) | Rejection::Invalid(_) => Self::invalid_argument(text),
            Rejection::Unauthenticated(_) => Self::unauthenticated(text),
            Rejection::Forbidden(_) => Self::permission_denied(text),
            Rejection::Unavailable(_) => Self::unavailable(text),
        }
    }
}
