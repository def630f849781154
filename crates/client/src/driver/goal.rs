//! When a run has done what it is for.

use super::{Activity, ClientError, Closing, Driver, Goal, now};

impl Driver {
    pub(super) fn is_reached(&mut self, goal: Goal) -> Result<bool, ClientError> {
        let is = |activity: &Activity| {
            // Rows of a file that was just attached are sealed bit by bit: there may be more.
            let sent = activity.connected && activity.waiting == 0 && !activity.seeding;
            match goal {
                Goal::Forever => false,
                Goal::Sent => sent,
                Goal::InStep => {
                    sent && activity.accepted == 0
                        && activity.caught_up
                        && activity.loading.is_none()
                }
            }
        };
        // Nothing more comes of it: what waits for the rest to be loaded (rows of a file that was
        // just attached, what was accepted) waits in vain.
        let is_stuck = |activity: &Activity, withheld: &Option<Closing>| {
            goal == Goal::InStep
                && withheld.is_some()
                && activity.loading.is_some()
                && activity.connected
                && activity.caught_up
                && activity.waiting == 0
        };
        let is_over = |activity: &Activity, withheld: &Option<Closing>| {
            is(activity) || is_stuck(activity, withheld)
        };
        if goal == Goal::Forever
            || !is_over(&self.check(self.replica().activity())?, &self.withheld)
        {
            return Ok(false);
        }
        // What was written since the file was last looked at belongs to it too.
        let woken = self.replica().wake(now());
        self.check(woken)?;
        let activity = self.check(self.replica().activity())?;
        if is(&activity) {
            return Ok(true);
        }
        match self.withheld.clone() {
            Some(why) if is_stuck(&activity, &self.withheld) => Err(self.closing_error(why)),
            Some(_) | None => Ok(false),
        }
    }
}
