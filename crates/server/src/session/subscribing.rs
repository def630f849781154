//! What the device asks for of the tables that sync on demand (docs/spec/demand.md).

use std::sync::Arc;

use syncline_core::wire::{
    Refusal, SUBSCRIPTIONS_MAX, ServerMessage, Subscribe, Subscription, code,
};

use super::{Action, Phase, Session, SessionContext};
use crate::demand::Demand;

/// Subscriptions, to begin and to end, that wait for the replica to take what it was sent.
const ASKED_MAX: usize = 2 * SUBSCRIPTIONS_MAX;

impl SessionContext {
    /// What a Hello asks for, as far as a device may have it, and what it asks for beyond that.
    pub(crate) fn demand_of<'w>(&self, wanted: &'w [Subscription]) -> (Demand, &'w [Subscription]) {
        let mut demand = Demand::none(Arc::clone(&self.plan));
        let most = (self.subscriptions_max as usize).min(wanted.len());
        let (within, beyond) = wanted.split_at(most);
        for subscription in within {
            demand.add(subscription.clone());
        }
        (demand, beyond)
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
        self.asked_for += 1 + subscribe.add.len() + subscribe.drop.len();
        self.asked.push_back(subscribe);
        if self.asked_for > ASKED_MAX {
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
        let asked = std::mem::take(&mut self.asked);
        self.asked_for = 0;
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
            "a device may subscribe to {most} things at a time: unsubscribe from what is not \
             needed, or raise `device_subscriptions` in [limits] of the server"
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
