//! Errors over HTTP: a status, and the same code and sentence as on the wire, as JSON.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use syncline_core::wire::{Refusal, code};
use syncline_store::StorageError;

/// What a handler answers when it does not do what it was asked.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) refusal: Refusal,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let refusal = Refusal {
            code: code.into(),
            message: message.into(),
            retry: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
            retry_after_ms: None,
            change: None,
            fatal: true,
        };
        Self { status, refusal }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code.as_str() {
            code::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            code::FORBIDDEN | code::WRONG_USER | code::ROW_GONE => StatusCode::FORBIDDEN,
            code::UNAVAILABLE | code::STORAGE => StatusCode::SERVICE_UNAVAILABLE,
            code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            code::TOO_FAST => StatusCode::TOO_MANY_REQUESTS,
            code::MALFORMED | code::SCHEMA | code::PROTOCOL => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        Self { status, refusal }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        tracing::error!(%error, "a request could not be served");
        super::committer::storage_refusal(&error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.refusal.code,
            "message": self.refusal.message,
            "retry": self.refusal.retry,
            "retry_after_ms": self.refusal.retry_after_ms,
            "change": self.refusal.change,
        });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(millis) = self.refusal.retry_after_ms {
            response
                .headers_mut()
                .insert("retry-after", millis.div_ceil(1000).into());
        }
        response
    }
}
