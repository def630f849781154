//! What the device asks for of the tables that sync on demand (docs/spec/demand.md).

use std::{collections::VecDeque, sync::Arc};

use syncline_core::wire::{
    Refusal, SUBSCRIPTION_KEYS_BYTES_MAX, SUBSCRIPTIONS_MAX, ServerMessage, Subscribe,
    Subscription, code,
};

use super::{Action, Phase, Session, SessionContext};
use crate::demand::{Demand, key_bytes};

/// Subscriptions, to begin and to end, that wait for the replica to take what it was sent.
const ASKED_MAX: usize = 2 * SUBSCRIPTIONS_MAX;
/// Most bytes of their keys.
const ASKED_BYTES_MAX: usize = 2 * SUBSCRIPTION_KEYS_BYTES_MAX;

/// What was asked for and the stream has not come to.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    changes: VecDeque<Subscribe>,
    /// How many subscriptions come and go with them; one at least with each.
    count: usize,
    /// Of their keys.
    bytes: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether there was room for it.
    fn push(&mut self, subscribe: Subscribe) -> bool {
        let all = || subscribe.add.iter().chain(&subscribe.drop);
        self.count += all().count().max(1);
        self.bytes += all().map(key_bytes).sum::<usize>();
        self.changes.push_back(subscribe);
        self.count <= ASKED_MAX && self.bytes <= ASKED_BYTES_MAX
    }
}

impl SessionContext {
    /// What a Hello asks for, as far as a device may have it, and what it asks for beyond that.
    pub(crate) fn demand_of<'w>(&self, wanted: &'w [Subscription]) -> (Demand, &'w [Subscription]) {
        let mut demand = Demand::none(Arc::clone(&self.plan));
        let most = self.subscriptions_max as usize;
        let mut within = 0;
        for subscription in wanted.iter().take(most) {
            if !demand.has_room(subscription, most) {
                break;
            }
            demand.add(subscription.clone());
            within += 1;
        }
        (demand, &wanted[within..])
    }
}

impl Session {
    /// Keeps what is asked for until the stream comes to it.
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        if matches!(
            self.phase,
            Phase::AwaitHello | Phase::Opening(_) | Phase::Welcoming(..)
        ) {
            return self.fail(code::MALFORMED, "Subscribe before the welcome", false);
        }
        if !self.asked.push(subscribe) {
            let sentence = "more subscriptions come and go than the answers are taken: slow down";
            self.fail(code::TOO_FAST, sentence, true);
        }
    }

    /// Does what was asked for. As a part of the stream: it costs credit, so that nobody makes
    /// the server keep frames by asking.
    pub(super) fn follow_subscriptions(&mut self) {
        if self.asked.is_empty() || !self.out.has_credit() {
            return;
        }
        let context = Arc::clone(&self.context);
        let asked = std::mem::take(&mut self.asked).changes;
        let Some(stream) = self.stream_mut() else {
            return;
        };
        let before = stream.sight.generation();
        let mut frames = Vec::new();
        let mut all = true;
        for subscribe in asked {
            all &= stream.subscribe(
                subscribe,
                context.subscriptions_max as usize,
                |bucket| context.plan.rules().tables_of(bucket),
                &mut frames,
            );
        }
        let sight_changed = before != stream.sight.generation();
        self.out.stream(frames);
        if sight_changed {
            self.actions.push_back(Action::Watch);
        }
        if !all {
            self.too_many_subscriptions();
        }
    }

    /// Says that some of what was asked for is not sent. The session goes on.
    pub(super) fn too_many_subscriptions(&mut self) {
        let most = self.context.subscriptions_max;
        let message = format!(
            "a device may subscribe to {most} things at a time, with keys of at most \
             {SUBSCRIPTION_KEYS_BYTES_MAX} bytes together: unsubscribe from what is not needed, or \
             raise `device_subscriptions` in [limits] of the server"
        );
        self.tell(code::TOO_MANY_SUBSCRIPTIONS, message);
    }

    /// Says that something is not sent. The session goes on.
    pub(super) fn tell(&mut self, code: &str, message: String) {
        let refusal = Refusal {
            code: code.into(),
            message,
            retry: false,
            retry_after_ms: None,
            change: None,
            fatal: false,
        };
        self.send(&ServerMessage::Refusal(refusal));
    }
}
