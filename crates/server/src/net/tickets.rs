//! `POST /v1/tickets`: one-use tickets for pages in browsers, which can set no header on a WebSocket
//! (spec AC18).

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::json;
use syncline_core::{Timestamp, UserId, wire::code};

use super::{Backend, Shared, caller::Caller, clock, error::ApiError, shared::come_back};
use crate::session::Proof;

/// Seconds for which a ticket is good.
const GOOD_SECONDS: u64 = 30;
/// Tickets of one user that are good at once; one more takes the place of the oldest.
const OF_USER_MAX: usize = 8;
/// Of all users together.
const ALL_MAX: usize = 10_000;

/// A ticket is kept by its hash: whoever reads this memory has none.
type Hash = [u8; 32];

/// The tickets that nobody has used yet.
#[derive(Debug, Default)]
pub(crate) struct Tickets(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: BTreeMap<Hash, Ticket>,
    by_user: BTreeMap<Option<UserId>, Vec<Hash>>,
}

#[derive(Debug)]
struct Ticket {
    proof: Proof,
    until: Timestamp,
}

impl Tickets {
    /// Keeps a ticket for `proof`; false if there are too many of everybody's.
    fn put(&self, ticket: &str, proof: Proof, now: Timestamp) -> bool {
        let mut inner = self.0.lock();
        let user = proof.identity.user.clone();
        let own = inner.by_user.get(&user).map_or(0, Vec::len);
        if own >= OF_USER_MAX {
            let oldest = inner
                .by_user
                .get(&user)
                .and_then(|own| own.first().copied());
            oldest.and_then(|oldest| inner.remove(&oldest));
        } else if inner.all.len() >= ALL_MAX {
            inner.forget(now);
            if inner.all.len() >= ALL_MAX {
                return false;
            }
        }
        let (hash, until) = (hash(ticket), Timestamp(now.0 + GOOD_SECONDS * 1_000_000));
        inner.by_user.entry(user).or_default().push(hash);
        inner.all.insert(hash, Ticket { proof, until });
        true
    }

    /// Whom a ticket was given to, if it is good; it is not any more after that.
    fn take(&self, ticket: &str, now: Timestamp) -> Option<Proof> {
        let ticket = self.0.lock().remove(&hash(ticket))?;
        (now < ticket.until).then_some(ticket.proof)
    }

    /// Drops those that are good no more.
    pub(crate) fn forget(&self, now: Timestamp) {
        self.0.lock().forget(now);
    }
}

impl Inner {
    fn remove(&mut self, hash: &Hash) -> Option<Ticket> {
        let ticket = self.all.remove(hash)?;
        let user = &ticket.proof.identity.user;
        if let Some(own) = self.by_user.get_mut(user) {
            own.retain(|other| other != hash);
            if own.is_empty() {
                self.by_user.remove(user);
            }
        }
        Some(ticket)
    }

    fn forget(&mut self, now: Timestamp) {
        let late = self.all.iter().filter(|(_, ticket)| ticket.until <= now);
        let late: Vec<Hash> = late.map(|(hash, _)| *hash).collect();
        for hash in late {
            self.remove(&hash);
        }
    }
}

fn hash(ticket: &str) -> Hash {
    *blake3::hash(ticket.as_bytes()).as_bytes()
}

impl<B: Backend> Shared<B> {
    /// Whom a ticket was given to. Whatever is wrong with it is told alike.
    pub(crate) fn redeem(&self, ticket: &str) -> Result<Proof, ApiError> {
        let now = clock::now();
        let proof = self.tickets.take(ticket, now);
        let is_good = |proof: &Proof| {
            let ends = proof.expires.is_some_and(|expires| expires <= now);
            !ends && !self.has_signed_out(&proof.identity)
        };
        proof.filter(is_good).ok_or_else(|| {
            let sentence = "this ticket is not good, or not any more: ask for another";
            super::auth::unauthorized(sentence).into()
        })
    }
}

pub(crate) async fn issue<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
) -> Result<Response, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, code::UNAVAILABLE, error.to_string())
    })?;
    let ticket = BASE64_URL_SAFE_NO_PAD.encode(random);
    if !shared.tickets.put(&ticket, proof, clock::now()) {
        let sentence = "too many tickets wait to be used";
        return Err(come_back(StatusCode::SERVICE_UNAVAILABLE, sentence));
    }
    let body = json!({ "ticket": ticket, "expires_in": GOOD_SECONDS });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use syncline_core::rules::Identity;

    use super::*;

    fn proof(user: usize) -> Proof {
        let user = Some(UserId(user.to_string()));
        Proof {
            identity: Arc::new(Identity {
                user,
                ..Identity::default()
            }),
            expires: None,
        }
    }

    #[test]
    fn ac18_tickets_are_good_once_and_not_for_long_and_take_no_room() {
        let tickets = Tickets::default();
        let at = |seconds: u64| Timestamp(1_000_000_000 + seconds * 1_000_000);
        assert!(tickets.put("a", proof(1), at(0)));
        let user = tickets
            .take("a", at(29))
            .and_then(|proof| proof.identity.user.clone());
        assert_eq!(user, Some(UserId("1".into())));
        assert!(tickets.take("a", at(29)).is_none(), "once");
        assert!(tickets.put("b", proof(1), at(0)));
        assert!(tickets.take("b", at(30)).is_none(), "late");
        assert!(tickets.take("c", at(0)).is_none(), "made up");

        // One user's are the last few, and make no others wait.
        for n in 0..100 {
            assert!(tickets.put(&format!("one {n}"), proof(1), at(0)));
        }
        assert_eq!(tickets.0.lock().all.len(), OF_USER_MAX);
        assert!(tickets.take("one 91", at(1)).is_none());
        assert!(tickets.take("one 92", at(1)).is_some());
        for user in 2..2 * ALL_MAX {
            tickets.put(&format!("of {user}"), proof(user), at(0));
        }
        assert_eq!(tickets.0.lock().all.len(), ALL_MAX);
        assert!(!tickets.put("full", proof(0), at(29)));
        assert!(tickets.put("room", proof(0), at(30)), "the late ones went");
        tickets.forget(at(60));
        let inner = tickets.0.lock();
        assert_eq!((inner.all.len(), inner.by_user.len()), (0, 0));
    }
}
