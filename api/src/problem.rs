//! Errors as problem documents (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what sort of problem it is.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong here.
    pub detail: String,
    /// The parameters that are wrong, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_parameters: Vec<InvalidParameter>,
    /// The fields of the body that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_fields: Vec<InvalidField>,
}

/// A field of a body that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvalidField {
    /// Where it is, such as `interfaces[0]`.
    pub field: String,
    /// What was found there, and what is allowed.
    pub detail: String,
}

/// A parameter that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvalidParameter {
    /// Its name.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What is wrong with it.
    pub reason: String,
    /// What is allowed.
    pub allowed: String,
}

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            invalid_parameters: Vec::new(),
            invalid_fields: Vec::new(),
        }
    }

    pub(crate) fn bad_query(invalid_parameters: Vec<InvalidParameter>) -> Self {
        let details: Vec<String> = invalid_parameters
            .iter()
            .map(|parameter| {
                format!(
                    "{}={}: {}, allowed: {}",
                    parameter.name, parameter.found, parameter.reason, parameter.allowed
                )
            })
            .collect();
        Self {
            invalid_parameters,
            ..Self::new(StatusCode::BAD_REQUEST, details.join("; "))
        }
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, content_type, body).into_response()
    }
}
