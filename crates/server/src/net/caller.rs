//! Who makes a request: looked at before anything else of it.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

use super::{Backend, Shared, clock, error::ApiError};
use crate::session::Proof;

/// The identity that a request's token proves; requests without a good one are refused before
/// their bodies are read.
pub(crate) struct Caller(pub(crate) Proof);

/// As [`Caller`], for whoever begins a session: by a ticket in the address, too.
pub(crate) struct SessionCaller(pub(crate) Proof);

impl<B: Backend> FromRequestParts<Arc<Shared<B>>> for SessionCaller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared<B>>,
    ) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let ticket = query
            .split('&')
            .find_map(|part| part.strip_prefix("ticket="));
        let Some(ticket) = ticket.filter(|_| !parts.headers.contains_key(header::AUTHORIZATION))
        else {
            let Caller(proof) = Caller::from_request_parts(parts, shared).await?;
            return Ok(Self(proof));
        };
        let proof = shared.redeem(ticket)?;
        shared.requests_by_user(&proof.identity, clock::now())?;
        Ok(Self(proof))
    }
}

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
