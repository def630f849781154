//! Devices ask for rows on demand, and for some of them no more.

use syncline_core::Version;
use syncline_replica::SubscriptionState;

use super::World;
use crate::{app::demand::topic, model::sealed::keyring};

/// How often a device seals with another key from then on, instead.
const TURN_PERCENT: u64 = 10;

impl World {
    /// Device `i` subscribes to something, or ends a subscription.
    pub(super) fn change_demand(&mut self, i: usize) -> anyhow::Result<()> {
        let device = &self.devices[i];
        let Some(replica) = &device.replica else {
            return Ok(());
        };
        // Before its file knows the tables there is nothing to name.
        if !self.model.app.has_on_demand() || device.shown()?.is_none_or(|at| at == Version::ZERO) {
            return Ok(());
        }
        let name = device.name.clone();
        if self.dice.percent(TURN_PERCENT) {
            let keys = keyring(self.dice.percent(50));
            self.devices[i].keys = keys.clone();
            self.say(format!("{name} seals with {:?}", keys.ids().next()));
            return self.call(i, |replica, _| replica.use_keys(keys));
        }
        let mut wanted = replica.subscriptions()?;
        wanted.retain(|known| !matches!(known.state, SubscriptionState::Ending(_)));
        if !wanted.is_empty() && self.dice.percent(40) {
            let topic = self.dice.pick(&wanted).topic.clone();
            let keep_ms = *self.dice.pick(&[0, 0, 900, 20_000, 300_000]);
            self.say(format!(
                "{name} unsubscribes from {topic:?} in {keep_ms} ms"
            ));
            self.model.counts.add("unsubscribes");
            return self.call(i, |replica, now| {
                replica.unsubscribe(&topic, keep_ms, now).map(drop)
            });
        }
        let topic = topic(&mut self.dice);
        self.say(format!("{name} subscribes to {topic:?}"));
        self.model.counts.add("subscribes");
        self.call(i, |replica, now| replica.subscribe(&topic, now).map(drop))
    }
}
