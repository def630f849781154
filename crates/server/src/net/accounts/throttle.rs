//! How often somebody may try: by account and address, with growing pauses and no lock-out.

use std::{collections::BTreeMap, hash::Hash, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use syncline_core::Timestamp;

use super::super::peer::Network;

/// Counters that are kept; the oldest make room.
const COUNTERS_MAX: usize = 50_000;
/// A counter is forgotten so long after its last failure.
const MEMORY: Duration = Duration::from_secs(3_600);

/// How many failures are free, and how long the pause grows.
#[derive(Debug, Clone, Copy)]
struct Budget {
    free: u32,
    pause_max: Duration,
}

/// One account from one address.
const PAIR: Budget = Budget {
    free: 5,
    pause_max: Duration::from_secs(900),
};
/// One address, whatever it tries.
const ADDRESS: Budget = Budget {
    free: 30,
    pause_max: Duration::from_secs(900),
};
/// One account, from wherever: strangers must not lock its owner out, so the pause stays short.
const ACCOUNT: Budget = Budget {
    free: 50,
    pause_max: Duration::from_secs(30),
};
/// Mails to one address and accounts made from one network address: each counts as a failure.
const MAIL: Budget = Budget {
    free: 5,
    pause_max: Duration::from_secs(3_600),
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Pair(String, Network),
    Address(Network),
    Account(String),
    Mail(String),
    Made(Network),
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    failures: u32,
    last: Timestamp,
}

/// Failures of the last hour.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<BTreeMap<Key, Counter>>);

impl Throttle {
    /// Counts an attempt to sign in as one that failed, until [`Throttle::succeeded`]: those that
    /// are made at the same time count, too.
    ///
    /// # Errors
    /// How long to wait first; then nothing is counted.
    pub(crate) fn attempt(
        &self,
        email: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let network = Network::from(address);
        self.count(
            &[
                (Key::Pair(email.to_owned(), network), PAIR),
                (Key::Address(network), ADDRESS),
                (Key::Account(email.to_owned()), ACCOUNT),
            ],
            now,
        )
    }

    /// The last attempt was right.
    pub(crate) fn succeeded(&self, email: &str, address: IpAddr) {
        let network = Network::from(address);
        let mut counters = self.0.lock();
        counters.remove(&Key::Pair(email.to_owned(), network));
        for key in [Key::Address(network), Key::Account(email.to_owned())] {
            if let Some(counter) = counters.get_mut(&key) {
                counter.failures = counter.failures.saturating_sub(1);
            }
        }
    }

    /// Counts a mail to `email`; `false`: there were enough.
    pub(crate) fn may_mail(&self, email: &str, now: Timestamp) -> bool {
        let key = Key::Mail(email.to_owned());
        self.count(&[(key, MAIL)], now).is_ok()
    }

    /// Counts something that costs this server an account or a mail.
    ///
    /// # Errors
    /// How long to wait first.
    pub(crate) fn may_make(&self, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        self.count(&[(Key::Made(address.into()), ADDRESS)], now)
    }

    fn count(&self, keys: &[(Key, Budget)], now: Timestamp) -> Result<(), Duration> {
        let mut counters = self.0.lock();
        let mut wait = Duration::ZERO;
        for (key, budget) in keys {
            if let Some(counter) = counters.get(key) {
                wait = wait.max(counter.wait(*budget, now));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        if counters.len() + keys.len() > COUNTERS_MAX {
            make_room(&mut counters, now);
        }
        for (key, _) in keys {
            let counter = counters.entry(key.clone()).or_insert(Counter {
                failures: 0,
                last: now,
            });
            if since(counter.last, now) > MEMORY {
                counter.failures = 0;
            }
            counter.failures = counter.failures.saturating_add(1);
            counter.last = now;
        }
        Ok(())
    }
}

impl Counter {
    /// What is left of the pause that follows the last failure.
    fn wait(&self, budget: Budget, now: Timestamp) -> Duration {
        let passed = since(self.last, now);
        if self.failures < budget.free || passed > MEMORY {
            return Duration::ZERO;
        }
        let doublings = (self.failures - budget.free).min(20);
        let pause = Duration::from_secs(1_u64 << doublings).min(budget.pause_max);
        pause.saturating_sub(passed)
    }
}

fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(now.0.saturating_sub(earlier.0))
}

/// What is forgotten anyway goes first, then the older half.
fn make_room(counters: &mut BTreeMap<Key, Counter>, now: Timestamp) {
    counters.retain(|_, counter| since(counter.last, now) <= MEMORY);
    if counters.len() < COUNTERS_MAX / 2 {
        return;
    }
    let mut ages: Vec<Timestamp> = counters.values().map(|counter| counter.last).collect();
    let middle = ages.len() / 2;
    let (_, median, _) = ages.select_nth_unstable(middle);
    let median = *median;
    let mut left = COUNTERS_MAX / 2;
    counters.retain(|_, counter| {
        let stays = counter.last >= median && left > 0;
        left -= usize::from(stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn other(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn ac6_pauses_grow_for_an_account_from_one_address() {
        let throttle = Throttle::default();
        for _ in 0..5 {
            throttle.attempt("ana@example.com", HOME, at(0)).unwrap();
        }
        let second = Duration::from_secs(1);
        let attempt = |seconds| throttle.attempt("ana@example.com", HOME, at(seconds));
        assert_eq!(attempt(0), Err(second));
        attempt(1).expect("the pause is over");
        assert_eq!(attempt(1), Err(2 * second));
        attempt(3).expect("the pause is over");
        assert_eq!(attempt(3), Err(4 * second));
        // Elsewhere its owner is not kept waiting.
        throttle
            .attempt("ana@example.com", other(1), at(3))
            .unwrap();
        throttle.succeeded("ana@example.com", HOME);
        attempt(3).expect("all is well again");
    }

    #[test]
    fn ac6_an_address_that_tries_many_accounts_is_slowed_down() {
        let throttle = Throttle::default();
        let mut taken = 0;
        for n in 0..10_000 {
            let email = format!("somebody{n}@example.com");
            taken += u32::from(throttle.attempt(&email, HOME, at(n / 100)).is_ok());
        }
        assert!(taken < 40, "{taken} of 10,000 guesses in 100 seconds");
    }

    #[test]
    fn ac6_strangers_from_everywhere_slow_an_account_down_and_never_lock_it() {
        let throttle = Throttle::default();
        let mut longest = Duration::ZERO;
        let mut taken = 0;
        for n in 0..3_600_u32 {
            match throttle.attempt("ana@example.com", other(n), at(u64::from(n))) {
                Ok(()) => taken += 1,
                Err(wait) => longest = longest.max(wait),
            }
        }
        assert!(taken < 200, "{taken} guesses in an hour");
        assert!(longest <= Duration::from_secs(30), "{longest:?}");
    }

    #[test]
    fn ac6_memory_is_bounded_and_an_hour_forgives() {
        let throttle = Throttle::default();
        for n in 0..60_000 {
            let _counted = throttle.attempt(&format!("{n}@example.com"), other(n), at(0));
        }
        assert!(throttle.0.lock().len() <= COUNTERS_MAX);
        for _ in 0..5 {
            throttle.attempt("ana@example.com", HOME, at(1)).unwrap();
        }
        throttle
            .attempt("ana@example.com", HOME, at(1))
            .unwrap_err();
        for _ in 0..5 {
            throttle
                .attempt("ana@example.com", HOME, at(3_700))
                .unwrap();
        }
    }

    #[test]
    fn ac6_one_network_of_ipv6_is_one_address() {
        let near = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        assert_eq!(Network::from(near(1)), Network::from(near(2)));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Network::from(mapped), Network::from(HOME));
    }
}
