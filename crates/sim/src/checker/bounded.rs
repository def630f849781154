//! Nothing grows: what both ends of a connection and the hub hold in memory stays under its caps.

use anyhow::bail;
use syncline_replica::Event;
use syncline_server::session::{Held, PUSHES_MAX};

/// Frames of a session that wait for the socket: its cap, one entry or page beyond it that was
/// begun below, and answers to every push.
const READY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames that wait for credit: one read of the log or of pages.
const HELD_BACK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pushes that were taken and not answered: 8 MiB, and the largest of the simulator beyond.
const UNANSWERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames that a device wants to send: below a cap, and one changeset beyond.
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What waits for its checkpoint on a device: in the simulator no changeset is larger.
const CHANGES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changesets of a device that wait before they are sent again: no run has so many.
const AGAIN_MAX: usize = 4_096;

/// One session on the server.
///
/// # Errors
/// What is too much.
pub(crate) fn check_session(held: Held) -> anyhow::Result<()> {
    let pushes = PUSHES_MAX as usize;
    let caps = [
        ("unanswered pushes", held.unanswered, pushes),
        (
            "bytes of pushes",
            held.unanswered_bytes,
            UNANSWERED_BYTES_MAX,
        ),
        ("actions for the driver", held.actions, 2 * pushes + 1),
        ("bytes for the socket", held.ready_bytes, READY_BYTES_MAX),
        (
            "bytes without credit",
            held.held_back_bytes,
            HELD_BACK_BYTES_MAX,
        ),
    ];
    check("a session", &caps)
}

/// The other end, on a device.
///
/// # Errors
/// What is too much.
pub(crate) fn check_replica(held: syncline_replica::Held) -> anyhow::Result<()> {
    let caps = [
        ("bytes to send", held.queued_bytes, QUEUED_BYTES_MAX),
        ("bytes to apply", held.changes_bytes, CHANGES_BYTES_MAX),
        ("unanswered pushes", held.in_flight, PUSHES_MAX as usize),
        ("changesets to send again", held.again, AGAIN_MAX),
        ("events", held.events, Event::PENDING_MAX),
    ];
    check("a device", &caps)
}

fn check(who: &str, caps: &[(&str, usize, usize)]) -> anyhow::Result<()> {
    match caps.iter().find(|(_, found, max)| found > max) {
        Some((what, found, max)) => bail!("{who} holds {found} {what}, {max} at most"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn se15_what_a_session_holds_is_capped() {
        check_session(Held::default()).expect("an empty session");
        let held = Held {
            unanswered: PUSHES_MAX as usize + 1,
            ..Held::default()
        };
        let error = check_session(held).expect_err("one more than it may");
        assert_eq!(
            error.to_string(),
            "a session holds 257 unanswered pushes, 256 at most"
        );
    }

    #[test]
    fn what_a_device_holds_is_capped() {
        check_replica(syncline_replica::Held::default()).expect("an idle device");
        let held = syncline_replica::Held {
            events: Event::PENDING_MAX + 1,
            ..syncline_replica::Held::default()
        };
        let error = check_replica(held).expect_err("one more than it may");
        assert_eq!(
            error.to_string(),
            "a device holds 4097 events, 4096 at most"
        );
    }
}
