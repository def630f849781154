//! Nothing grows: what sessions, the hub and links hold in memory stays under its caps.

use anyhow::bail;
use syncline_server::session::{Held, PUSHES_MAX};

/// Frames of a session that wait for the socket: its cap, one entry or page beyond it that was
/// begun below, and answers to every push.
const READY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames that wait for credit: one read of the log or of pages.
const HELD_BACK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pushes that were taken and not answered: 8 MiB, and the largest of the simulator beyond.
const UNANSWERED_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    match caps.iter().find(|(_, found, max)| found > max) {
        Some((what, found, max)) => bail!("a session holds {found} {what}, {max} at most"),
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
}
