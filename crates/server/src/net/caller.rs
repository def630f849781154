//! Who makes a request: looked at before anything else of it.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{Backend, Shared, clock, error::ApiError};
use crate::session::Proof;

/// The identity that a request's token proves; requests without a good one are refused before
/// their bodies are read.
pub(crate) struct Caller(pub(crate) Proof);

impl<B: Backend> FromRequestParts<Arc<Shared<B>>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared<B>>,
    ) -> Result<Self, ApiError> {
        let proof = shared.identify(&parts.headers).await?;
        shared.requests_by_user(&proof.identity, clock::now())?;
        Ok(Self(proof))
    }
}
