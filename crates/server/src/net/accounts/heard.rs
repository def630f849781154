//! Whether what a refresh token led to has arrived (spec AC8).

use std::{collections::BTreeMap, time::Duration};

use syncline_core::Timestamp;
use syncline_store::accounts::LoginId;

use super::refresh::later;

/// Logins remembered; beyond that the older half is forgotten.
const LOGINS_MAX: usize = 100_000;
/// Access tokens say in whole seconds when they were made.
const SECOND: Duration = Duration::from_secs(1);

/// The newest access token of each login that anybody has shown.
#[derive(Debug)]
pub(super) struct Heard {
    /// What was given before this may have been shown without anybody knowing: this server was
    /// not there, or has forgotten.
    since: Timestamp,
    made: BTreeMap<LoginId, Timestamp>,
}

impl Heard {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            made: BTreeMap::new(),
        }
    }

    /// An access token of `login` was shown that was made then.
    pub(super) fn note(&mut self, login: LoginId, made: Timestamp) {
        let newest = self.made.entry(login).or_default();
        *newest = made.max(*newest);
        if self.made.len() > LOGINS_MAX {
            self.forget_older();
        }
    }

    /// Whether nobody has shown anything that was given to `login` at `given` or later.
    pub(super) fn is_silent(&self, login: LoginId, given: Timestamp) -> bool {
        let is_before = |made: &Timestamp| later(*made, SECOND) <= given;
        given >= self.since && self.made.get(&login).is_none_or(is_before)
    }

    fn forget_older(&mut self) {
        let mut times: Vec<_> = self.made.values().copied().collect();
        let (_, &mut middle, _) = times.select_nth_unstable(LOGINS_MAX / 2);
        self.made.retain(|_, made| *made > middle);
        self.since = self.since.max(later(middle, SECOND));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn ac8_what_is_not_known_is_not_silent() {
        let (one, other) = (LoginId([1; 16]), LoginId([2; 16]));
        let mut heard = Heard::new(at(100));
        assert!(
            !heard.is_silent(one, at(99)),
            "before this server was there"
        );
        assert!(heard.is_silent(one, at(200)));
        heard.note(one, at(150));
        assert!(heard.is_silent(one, at(200)), "an older one was shown");
        heard.note(one, at(200));
        heard.note(one, at(160));
        assert!(!heard.is_silent(one, at(200)));
        // Given in the second that the token says.
        assert!(!heard.is_silent(one, Timestamp(at(200).0 + 900_000)));
        assert!(heard.is_silent(other, at(200)));
    }

    #[test]
    fn ac8_what_was_forgotten_is_not_silent() {
        let login = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            LoginId(id)
        };
        let mut heard = Heard::new(at(0));
        let count = LOGINS_MAX + 10;
        for n in 0..count {
            heard.note(login(n), at(1_000 + n as u64));
        }
        assert!(heard.made.len() <= LOGINS_MAX);
        for n in (0..count).step_by(997) {
            assert!(!heard.is_silent(login(n), at(1_000 + n as u64)), "{n}");
        }
        assert!(heard.is_silent(login(count - 1), at(1_000 + count as u64)));
    }
}
