//! `/v1/devices`: a user's own devices, to be looked at, renamed and deregistered (spec DE6).

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
};
use serde::{Deserialize, Serialize};
use syncline_core::{
    DeviceId, DeviceName, Lease, Timestamp, UserId, Version, rules::Identity, wire::code,
};
use syncline_store::{DeviceState, Reader, device::is_to_be_wiped};
use tokio::sync::oneshot;

use super::{
    Backend, Shared,
    body::Body,
    caller::Caller,
    clock,
    committer::{DeviceChange, Request},
    error::ApiError,
    http::NOT_FOUND,
    json,
    shared::stopping,
};

/// Devices of one user that are told, those that were seen last.
pub(crate) const DEVICES_MAX: usize = 1_000;

#[derive(Debug, Serialize)]
pub(crate) struct DevicesResponse {
    devices: Vec<DeviceResponse>,
}

/// One device, as its user may see it.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceResponse {
    id: String,
    name: String,
    platform: String,
    first_seen_ms: u64,
    /// Now, if it is connected.
    last_seen_ms: u64,
    connected: bool,
    /// The newest checkpoint that it is known to have; none while it has to load everything.
    checkpoint: Option<u64>,
    /// How much older that is than the newest change that it may lack; 0 if it lacks none.
    behind_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenameRequest {
    name: String,
}

pub(crate) async fn list<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
) -> Result<
    (
        [(header::HeaderName, &'static str); 1],
        Json<DevicesResponse>,
    ),
    ApiError,
> {
    let user = user_of(&proof.identity);
    let hidden = json::device_of(&shared.context(), &user);
    let runtime = tokio::runtime::Handle::current();
    let devices = shared
        .readers
        .run(move |reader| runtime.block_on(reader.devices(&user, DEVICES_MAX)))
        .await?;
    let devices = devices.iter().filter(|device| device.id != hidden);
    let devices = devices.map(|device| shown(&shared, device)).collect();
    let header = [(header::CACHE_CONTROL, "no-store")];
    Ok((header, Json(DevicesResponse { devices })))
}

pub(crate) async fn rename<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    Path(id): Path<String>,
    Body(request): Body<RenameRequest>,
) -> Result<Json<DeviceResponse>, ApiError> {
    let name = DeviceName::new(&request.name).map_err(|error| {
        let status = StatusCode::BAD_REQUEST;
        ApiError::new(status, code::MALFORMED, error.to_string())
    })?;
    let change = DeviceChange::Rename(name);
    let device = changed(&shared, &proof.identity, &id, change).await?;
    Ok(Json(shown(&shared, &device)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeregisterRequest {
    /// What it synced is to be removed there.
    #[serde(default)]
    wipe: bool,
}

pub(crate) async fn deregister<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    Path(id): Path<String>,
    query: Result<Query<DeregisterRequest>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let Query(request) = query.map_err(|rejection| {
        let sentence = rejection.body_text();
        ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
    })?;
    let change = DeviceChange::Deregister { wipe: request.wipe };
    changed(&shared, &proof.identity, &id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a device shows in place of a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WishRequest {
    lease: String,
    next_lease: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct WishResponse {
    wipe: bool,
}

/// Tells a device whether it is to be wiped; whatever is none, or not this one, hears no (spec
/// DE9). Its tokens may have died with its registration.
pub(crate) async fn wish<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Path(id): Path<String>,
    Body(request): Body<WishRequest>,
) -> Result<Json<WishResponse>, ApiError> {
    let lease = |hex: &str| Lease::from_hex(hex).unwrap_or_default();
    let leases = [lease(&request.lease), lease(&request.next_lease)];
    let device = match DeviceId::from_hex(&id) {
        Some(id) => {
            let runtime = tokio::runtime::Handle::current();
            let read = move |reader: &mut B::Reader| runtime.block_on(reader.device(id));
            shared.readers.run(read).await?
        }
        None => None,
    };
    let wipe = device.is_some_and(|device| is_to_be_wiped(&device, leases));
    Ok(Json(WishResponse { wipe }))
}

/// Has the committer change the caller's device. Whatever is no device of the caller's is
/// answered alike.
async fn changed<B: Backend>(
    shared: &Shared<B>,
    identity: &Identity,
    id: &str,
    change: DeviceChange,
) -> Result<DeviceState, ApiError> {
    let user = user_of(identity);
    let hidden = json::device_of(&shared.context(), &user);
    let device = DeviceId::from_hex(id).filter(|device| *device != hidden);
    let device = device.ok_or_else(no_such_device)?;
    let (answer, answered) = oneshot::channel();
    let request = Request::Device(user, device, change, answer);
    shared.request(request).await?;
    let found = answered.await.map_err(|_| stopping())??;
    found.ok_or_else(no_such_device)
}

fn user_of(identity: &Identity) -> UserId {
    let user = identity.user.clone();
    user.unwrap_or_else(|| UserId(String::new()))
}

fn no_such_device() -> ApiError {
    let sentence = "you have no device with this id; GET /v1/devices lists those you have";
    ApiError::new(StatusCode::NOT_FOUND, NOT_FOUND, sentence)
}

fn shown<B: Backend>(shared: &Shared<B>, device: &DeviceState) -> DeviceResponse {
    let connected = shared.presences.connected(device.id);
    let told = connected.and_then(|connected| connected.checkpoint);
    let checkpoint = Some(told.unwrap_or(device.checkpoint)).filter(|at| *at > Version::ZERO);
    let (head, _) = shared.context().recent.head();
    let is_in_step = connected.is_some_and(|connected| connected.is_in_step);
    let behind = |checkpoint: Version| match is_in_step {
        true => 0,
        false => Timestamp(head.0.saturating_sub(checkpoint.0)).as_millis(),
    };
    let last_seen = match connected {
        Some(_) => clock::now().max(device.last_seen),
        None => device.last_seen,
    };
    DeviceResponse {
        id: device.id.to_string(),
        name: device.name.clone(),
        platform: device.platform.clone(),
        first_seen_ms: device.first_seen.as_millis(),
        last_seen_ms: last_seen.as_millis(),
        connected: connected.is_some(),
        checkpoint: checkpoint.map(|checkpoint| checkpoint.0),
        behind_ms: checkpoint.map(behind),
    }
}
