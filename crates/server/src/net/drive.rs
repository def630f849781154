//! Drives one [`Session`]: between a pair of frame channels, the committer and the readers.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use syncline_core::wire::{PushResult, Refusal};
use syncline_store::StorageError;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use super::{
    Backend,
    auth::unauthorized,
    clock,
    committer::Request,
    metrics,
    no_reader::NoReader,
    shared::{Registered, STOPPING, Shared},
};
use crate::{
    Action, Session,
    session::{Opened, Proof},
};

/// Batches of frames that may wait between session and socket: the socket's own buffers come on top.
pub(crate) const BATCHES_OUT_MAX: usize = 2;
/// A batch ends with the frame that makes it so long: small frames leave together.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;
/// Frames that may wait to be heard.
pub(crate) const FRAMES_IN_MAX: usize = 1;
/// When the server stops, changesets that were taken are answered within this.
const ANSWERS_MAX: Duration = Duration::from_secs(2);
/// A session that has ended waits so long for its last frames to be taken.
const FAREWELL_MAX: Duration = Duration::from_secs(3);
/// After a failed read the next one waits.
const READ_AGAIN: Duration = Duration::from_millis(200);
/// Bytes of changesets that all sessions together may keep. Beyond it those that keep more than
/// their share are told to come back.
const HELD_BYTES_MAX: usize = 512 * 1024 * 1024;
const HELD_BYTES_SHARE: usize = 1024 * 1024;

/// The two ends of a transport.
pub(crate) struct Frames {
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    /// Frames that leave together.
    pub(crate) outgoing: mpsc::Sender<Vec<Bytes>>,
}

/// What a transport hands over.
pub(crate) enum Incoming {
    Frame(Vec<u8>),
    /// A frame longer than the transport takes; it has been skipped.
    TooLong,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The replica left, or was silent for too long.
    Left,
    /// It was refused.
    Refused,
    /// It was told to come back.
    GoneAway,
}

/// What a session waits for from the committer, in order.
enum Pending {
    Open(oneshot::Receiver<Result<Opened, Refusal>>),
    Commit(oneshot::Receiver<PushResult>),
}

/// Runs a session until either side ends it. The caller has counted the connection.
pub(crate) async fn drive<B: Backend>(
    shared: Arc<Shared<B>>,
    proof: Proof,
    mut frames: Frames,
) -> End {
    metrics::session_opened();
    let wake = Arc::new(Notify::new());
    let mut run = Run {
        registered: shared.register(Arc::clone(&wake), &proof.identity),
        held: Held::new(Arc::clone(&shared.held_bytes)),
        shared: Arc::clone(&shared),
        pending: VecDeque::new(),
    };
    let mut stop = shared.stopping();
    let mut generation = shared.generation();
    let mut session = Session::new(shared.context(), proof.identity, clock::now())
        .until(proof.expires)
        .paced(shared.rates());
    drop(shared);
    // What rarely happens is waited for all the time, and not anew whenever something else happens.
    let mut stopping = pin!(async { drop(stop.wait_for(|stop| *stop).await) });
    let mut changed = pin!(generation.changed());
    let mut alarm = pin!(tokio::time::sleep(clock::until(session.poll_timeout())));
    let mut end = End::Left;
    let mut more = false;
    // Once set, nothing more is heard, and it is the end whatever is still to be done.
    let mut deadline: Option<Instant> = None;
    loop {
        // What was committed before the hub knew what the session sees has woken nobody.
        more |= run.act(&mut session).await;
        let presence = &run.registered.presence;
        presence.update(session.acknowledged(), session.is_in_step());
        if presence.is_deregistered() && !session.is_closed() {
            session.deregistered();
            end = End::Refused;
        }
        if presence.is_signed_out() && !session.is_closed() {
            session.renewed(Err(unauthorized("this login was ended: sign in again")));
            end = End::Refused;
        }
        if run.held.is_too_much(session.held_bytes()) {
            session.go_away(
                "more changes are on their way than this server can keep",
                2_000,
            );
            end = End::GoneAway;
        }
        if deadline.is_some() && run.pending.is_empty() && !session.is_closed() {
            session.go_away(STOPPING, 1_000);
        }
        while session.has_frames()
            && let Ok(permit) = frames.outgoing.try_reserve()
        {
            permit.send(batch(&mut session));
        }
        if session.is_closed() {
            if !session.has_frames() {
                break;
            }
            deadline.get_or_insert_with(|| Instant::now() + FAREWELL_MAX);
        }
        // One that is too early costs less than setting it each time.
        let due = Instant::now() + clock::until(session.poll_timeout());
        if due < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(due);
        }
        let has_frame = session.has_frames();
        let is_listening = session.is_listening() && deadline.is_none();
        let is_open = !session.is_closed();
        let at_last = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            permit = frames.outgoing.reserve(), if has_frame => {
                let Ok(permit) = permit else { break };
                permit.send(batch(&mut session));
                if session.has_frames() { continue }
            }
            frame = frames.incoming.recv(), if is_listening => match frame {
                Some(Incoming::Frame(frame)) => {
                    metrics::frame_in(frame.len());
                    session.receive(&frame, clock::now());
                }
                Some(Incoming::TooLong) => session.too_long(),
                None => break,
            },
            answered = run.next_answer(), if !run.pending.is_empty() => answered.give(&mut session),
            () = wake.notified(), if is_open => {}
            () = std::future::ready(()), if more && !has_frame && is_open => {}
            () = &mut stopping, if deadline.is_none() => {
                end = End::GoneAway;
                deadline = Some(Instant::now() + ANSWERS_MAX);
            }
            _ = &mut changed, if is_open => {
                end = End::GoneAway;
                session.go_away("tables or rules have changed", 1);
            }
            () = &mut alarm, if is_open => session.timeout(clock::now()),
            () = tokio::time::sleep_until(at_last), if deadline.is_some() => {
                if session.is_closed() { break }
                session.go_away(STOPPING, 1_000);
                deadline = Some(Instant::now() + FAREWELL_MAX);
            }
        }
        if session.is_closed() {
            if session.has_frames() && end == End::Left {
                end = End::Refused;
            }
            more = false;
            continue;
        }
        match run.pump(&mut session).await {
            Ok(again) => more = again,
            Err(error) => {
                tracing::warn!(%error, "a session could not read; trying again");
                tokio::time::sleep(READ_AGAIN).await;
                more = true;
            }
        }
    }
    end
}

/// What is ready, as far as it leaves at once.
fn batch(session: &mut Session) -> Vec<Bytes> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES
        && let Some(frame) = session.poll_frame()
    {
        metrics::frame_out(frame.len());
        bytes += frame.len();
        batch.push(frame);
    }
    batch
}

struct Run<B: Backend> {
    shared: Arc<Shared<B>>,
    registered: Registered<B>,
    held: Held,
    pending: VecDeque<Pending>,
}

enum Answer {
    Opened(Result<Opened, Refusal>),
    Committed(PushResult),
    /// The committer is gone, or gave up on this request.
    None,
}

impl Answer {
    fn give(self, session: &mut Session) {
        match self {
            Self::Opened(result) => session.opened(result),
            Self::Committed(result) => session.committed(&result),
            Self::None => session.go_away("the server could not do this now", 1_000),
        }
    }
}

impl<B: Backend> Run<B> {
    /// Does what the session asks for; whether the hub was told what it sees.
    async fn act(&mut self, session: &mut Session) -> bool {
        let mut is_watched_anew = false;
        while let Some(action) = session.poll_action() {
            match action {
                Action::Open(hello) => {
                    let (answer, answered) = oneshot::channel();
                    let user = session.user().clone();
                    let presence = Arc::clone(&self.registered.presence);
                    let request = Request::Open(hello, user, Some(presence), answer);
                    if self.shared.request(request).await.is_err() {
                        session.go_away(STOPPING, 1_000);
                        return false;
                    }
                    self.pending.push_back(Pending::Open(answered));
                }
                Action::Commit(request) => {
                    let (answer, answered) = oneshot::channel();
                    let submission = session.submission(*request);
                    let request = Request::Commit(Box::new(submission), answer);
                    if self.shared.request(request).await.is_err() {
                        session.go_away(STOPPING, 1_000);
                        return false;
                    }
                    self.pending.push_back(Pending::Commit(answered));
                }
                Action::Renew(token) => session.renewed(self.shared.prove(&token).await),
                Action::Watch => {
                    if let Some(sight) = session.sight() {
                        let mut hub = self.shared.hub.lock();
                        hub.watch(self.registered.id, session.device(), sight);
                        is_watched_anew = true;
                    }
                }
                Action::Close => {}
            }
        }
        is_watched_anew
    }

    async fn next_answer(&mut self) -> Answer {
        // Awaiting by reference keeps this safe to cancel.
        let answer = match self.pending.front_mut() {
            Some(Pending::Open(answered)) => answered.await.map_or(Answer::None, Answer::Opened),
            Some(Pending::Commit(answered)) => {
                answered.await.map_or(Answer::None, Answer::Committed)
            }
            None => std::future::pending().await,
        };
        self.pending.pop_front();
        answer
    }

    /// Pumps in place while memory suffices, and on a blocking thread when the storage is read.
    async fn pump(&self, session: &mut Session) -> Result<bool, StorageError> {
        let now = clock::now();
        if !session.needs_storage() {
            let pumped = session.pump(&mut NoReader, now).now_or_never();
            return match pumped {
                // What it needs has left memory since: with a reader, then.
                None | Some(Err(StorageError::Busy)) => Ok(true),
                Some(pumped) => pumped,
            };
        }
        let mut moved = session.take();
        let runtime = tokio::runtime::Handle::current();
        let (pumped, moved) = self
            .shared
            .readers
            .run(move |reader| {
                let pumped = runtime.block_on(moved.pump(reader, now));
                Ok((pumped, moved))
            })
            .await?;
        *session = moved;
        pumped
    }
}

/// This session's part of what all sessions keep.
struct Held {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Held {
    fn new(all: Arc<AtomicUsize>) -> Self {
        Self { all, own: 0 }
    }

    /// Counts `own` bytes as kept; whether that has to end.
    fn is_too_much(&mut self, own: usize) -> bool {
        if own == self.own {
            return false;
        }
        self.all.fetch_add(own, Ordering::Relaxed);
        let all = self.all.fetch_sub(self.own, Ordering::Relaxed) - self.own;
        self.own = own;
        all > HELD_BYTES_MAX && own > HELD_BYTES_SHARE
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_keep_much_are_told_to_go_when_all_keep_too_much() {
        let all = Arc::new(AtomicUsize::new(HELD_BYTES_MAX - 10));
        let mut small = Held::new(Arc::clone(&all));
        let mut large = Held::new(Arc::clone(&all));
        assert!(!large.is_too_much(10));
        assert!(
            !small.is_too_much(1_000),
            "a small share is never the problem"
        );
        assert!(large.is_too_much(HELD_BYTES_SHARE + 1));
        assert!(!large.is_too_much(0), "it was committed or dropped");
        drop((small, large));
        assert_eq!(all.load(Ordering::Relaxed), HELD_BYTES_MAX - 10);
    }
}
