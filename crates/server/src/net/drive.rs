//! Drives one [`Session`]: between a transport, the committer and the readers.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use syncline_core::{
    Timestamp,
    wire::{PushResult, Refusal},
};
use syncline_store::StorageError;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::{
    Backend,
    auth::unauthorized,
    clock,
    committer::{Request, Waiting},
    held::{Held, TOO_MUCH},
    metrics,
    no_reader::NoReader,
    shared::{Registered, STOPPING, Shared},
    turns::Turn,
    wake::Wake,
};
use crate::{
    Action, Session,
    session::{Opened, Proof},
};

/// When the server stops, changesets that were taken are answered within this.
const ANSWERS_MAX: Duration = Duration::from_secs(2);
/// A session that has ended waits so long for its last frames to be taken.
const FAREWELL_MAX: Duration = Duration::from_secs(3);
/// After a failed read the next one waits.
const READ_AGAIN: Duration = Duration::from_millis(200);

/// What carries a session's frames.
pub(crate) trait Transport {
    /// The replica's next frame; `None` when it has left, and never asked again then.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Incoming>>;
    /// Whether one more frame may be given to it.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>>;
    /// Takes a frame, once it was ready for it.
    fn give(&mut self, frame: Bytes) -> Result<(), Lost>;
    /// Passes on what it was given.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>>;
}

/// Nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// What a transport hands over.
pub(crate) enum Incoming {
    Frame(Bytes),
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
    /// The transport takes nothing any more.
    Lost,
}

/// What a session waits for from the committer, in order.
enum Pending {
    Open(oneshot::Receiver<Result<Opened, Refusal>>),
    Commit(oneshot::Receiver<PushResult>),
}

/// What a session's turn is for.
enum Event {
    Frame(Incoming),
    /// The replica has left.
    Left,
    /// Answers of the committer were given to the session.
    Answered,
    /// Something was committed, or the session is to end.
    Woken,
    /// It may read the database.
    Turn(Turn),
    Alarm,
    /// There is more to be sent.
    More,
    /// The session is closed, and all it had to say was passed on.
    Said,
    Lost,
}

/// Runs a session until either side ends it. The caller has counted the connection.
///
/// One task hears, decides and writes: a change that was committed wakes it once, and what it has
/// to say is with the transport before it waits again.
pub(crate) async fn drive<B: Backend>(
    shared: Arc<Shared<B>>,
    proof: Proof,
    transport: &mut impl Transport,
) -> End {
    metrics::session_opened();
    let wake = Arc::new(Wake::default());
    // Before the context is read: whoever reads an old one hears that there is a new one.
    let generation = shared.generation();
    let session = Session::new(shared.context(), Arc::clone(&proof.identity), clock::now())
        .until(proof.expires)
        .paced(shared.rates());
    let mut run = Run {
        registered: shared.register(Arc::clone(&wake), &proof.identity),
        hearing: Waker::from(Arc::clone(&wake)),
        wake,
        generation,
        arriving: Held::new(&shared.held),
        shared,
        session,
        pending: VecDeque::new(),
        is_unflushed: false,
        more: false,
        line: None,
        end: End::Left,
        deadline: None,
    };
    if run.shared.has_signed_out(&proof.identity) {
        // Nobody tells a session that was not known yet.
        run.registered.presence.set_signed_out();
    }
    drop(proof);
    let mut turn = None;
    let mut asked = run.session.poll_timeout();
    let mut alarm = pin!(tokio::time::sleep(clock::until(asked)));
    // What came before the session was known to others has woken nobody.
    run.look();
    loop {
        let unflushed = run.is_unflushed;
        passing_on(transport, unflushed, run.act()).await;
        run.judge();
        // One that is too early costs less than setting it each time.
        let due = run.session.poll_timeout();
        if due < asked || run.deadline.is_some() || alarm.is_elapsed() {
            asked = due;
            alarm.as_mut().reset(run.alarm_at(due));
        }
        let event = poll_fn(|context| run.poll(context, alarm.as_mut(), transport)).await;
        match event {
            Event::Frame(Incoming::Frame(frame)) => {
                metrics::frame_in(frame.len());
                run.session.receive(&frame, clock::now());
            }
            Event::Frame(Incoming::TooLong) => run.session.too_long(),
            Event::Woken => run.look(),
            Event::Alarm if run.is_over() => break,
            Event::Alarm => run.session.timeout(clock::now()),
            Event::Turn(its) => turn = Some(its),
            Event::Answered | Event::More => {}
            Event::Lost => {
                run.end = End::Lost;
                break;
            }
            Event::Left | Event::Said => break,
        }
        if run.session.is_closed() {
            continue;
        }
        let unflushed = run.is_unflushed;
        match passing_on(transport, unflushed, run.pump(turn.take())).await {
            Ok(again) => run.more = again,
            Err(error) => {
                tracing::warn!(%error, "a session could not read; trying again");
                tokio::time::sleep(READ_AGAIN).await;
                run.more = true;
            }
        }
    }
    run.end
}

/// Does `work`, which may have to wait for others; what the transport has begun to pass on goes on
/// meanwhile. If it breaks, the next write says so.
async fn passing_on<T>(
    transport: &mut impl Transport,
    mut unflushed: bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        unflushed = unflushed && transport.poll_flush(context).is_pending();
        work.as_mut().poll(context)
    })
    .await
}

struct Run<B: Backend> {
    shared: Arc<Shared<B>>,
    session: Session,
    registered: Registered<B>,
    wake: Arc<Wake>,
    /// What the transport wakes when something arrives.
    hearing: Waker,
    /// Of tables and rules, when the session began.
    generation: u64,
    arriving: Held,
    pending: VecDeque<Pending>,
    /// The transport keeps frames that it has to pass on.
    is_unflushed: bool,
    /// The session has more to say although nothing happens.
    more: bool,
    /// Its place among those who read for this user (spec LI10); meanwhile it goes on hearing.
    line: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
    end: End,
    /// Once set, nothing more is heard, and it is the end whatever is still to be done.
    deadline: Option<Instant>,
}

enum Answer {
    Opened(Result<Opened, Refusal>),
    Committed(PushResult),
    /// The committer is gone, or gave up on this request.
    None,
}

impl Pending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        match self {
            Self::Open(answered) => Pin::new(answered)
                .poll(context)
                .map(|answer| answer.map_or(Answer::None, Answer::Opened)),
            Self::Commit(answered) => Pin::new(answered)
                .poll(context)
                .map(|answer| answer.map_or(Answer::None, Answer::Committed)),
        }
    }
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
    /// Does what the session asks for.
    async fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Open(hello) => {
                    let (answer, answered) = oneshot::channel();
                    let user = self.session.user().clone();
                    let presence = Arc::clone(&self.registered.presence);
                    let request = Request::Open(hello, user, Some(presence), answer);
                    if self.shared.request(request).await.is_err() {
                        self.end = End::GoneAway;
                        return self.session.go_away(STOPPING, 1_000);
                    }
                    self.pending.push_back(Pending::Open(answered));
                }
                Action::Commit(request) => {
                    let mut held = Held::new(&self.shared.held);
                    // Its own is among what the session has not been answered yet.
                    let others = self.session.unanswered_weight() - request.weight;
                    if held.is_too_much(request.weight, others) {
                        self.end = End::GoneAway;
                        return self.session.go_away(TOO_MUCH, 2_000);
                    }
                    let (answer, answered) = oneshot::channel();
                    let submission = self.session.submission(*request);
                    let request = Request::Commit(Box::new(submission), Waiting::new(answer, held));
                    if self.shared.request(request).await.is_err() {
                        self.end = End::GoneAway;
                        return self.session.go_away(STOPPING, 1_000);
                    }
                    self.pending.push_back(Pending::Commit(answered));
                }
                Action::Renew(token) => self.session.renewed(self.shared.prove(&token).await),
                Action::Watch => {
                    if let Some(sight) = self.session.sight() {
                        let mut hub = self.shared.hub.lock();
                        hub.watch(self.registered.id, self.session.device(), sight);
                        // What was committed before has woken nobody.
                        self.more = true;
                    }
                }
                Action::Close => {}
            }
        }
    }

    /// Looks at what others may have wanted to tell it when they woke it.
    fn look(&mut self) {
        if self.session.is_closed() {
            return;
        }
        let presence = &self.registered.presence;
        if presence.is_deregistered() {
            self.session.deregistered();
            self.end = End::Refused;
        } else if presence.is_signed_out() {
            let refusal = unauthorized("this login was ended: sign in again");
            self.session.renewed(Err(refusal));
            self.end = End::Refused;
        } else if self.deadline.is_none() && self.shared.is_stopping() {
            self.end = End::GoneAway;
            self.deadline = Some(Instant::now() + ANSWERS_MAX);
        } else if self.shared.generation() != self.generation {
            self.session.go_away("tables or rules have changed", 1);
            self.end = End::GoneAway;
        }
    }

    /// Tells others how far it is, and whether it has to end.
    fn judge(&mut self) {
        let session = &mut self.session;
        let presence = &self.registered.presence;
        presence.update(session.acknowledged(), session.is_in_step());
        if self
            .arriving
            .is_too_much(session.arriving_bytes(), session.unanswered_weight())
        {
            session.go_away(TOO_MUCH, 2_000);
            self.end = End::GoneAway;
        }
        if self.deadline.is_some() && self.pending.is_empty() && !session.is_closed() {
            session.go_away(STOPPING, 1_000);
        }
        if session.is_closed() {
            if session.has_frames() && self.end == End::Left {
                self.end = End::Refused;
            }
            self.line = None;
            self.deadline
                .get_or_insert_with(|| Instant::now() + FAREWELL_MAX);
        }
    }

    /// When something is to be done although nothing happens; `due` is what the session asks for.
    fn alarm_at(&self, due: Timestamp) -> Instant {
        let due = Instant::now() + clock::until(due);
        match self.deadline {
            Some(deadline) if self.session.is_closed() => deadline,
            Some(deadline) => deadline.min(due),
            None => due,
        }
    }

    /// Whether the time to end has come; one that still waits for answers says goodbye first.
    fn is_over(&mut self) -> bool {
        if self
            .deadline
            .is_none_or(|deadline| Instant::now() < deadline)
        {
            return false;
        }
        if self.session.is_closed() {
            return true;
        }
        self.session.go_away(STOPPING, 1_000);
        self.deadline = Some(Instant::now() + FAREWELL_MAX);
        false
    }

    /// Passes on what the session has to say, as far as the transport takes it, and waits for
    /// something to happen. Everything in it is safe to cancel.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        alarm: Pin<&mut Sleep>,
        transport: &mut impl Transport,
    ) -> Poll<Event> {
        let is_open = !self.session.is_closed();
        self.wake.register(context);
        match self.poll_write(context, transport) {
            Poll::Ready(Err(Lost)) => return Poll::Ready(Event::Lost),
            Poll::Ready(Ok(())) if !is_open => return Poll::Ready(Event::Said),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        // All answers that there are: they and their checkpoint leave together.
        let mut is_answered = false;
        while let Some(Poll::Ready(answer)) =
            self.pending.front_mut().map(|next| next.poll(context))
        {
            self.pending.pop_front();
            answer.give(&mut self.session);
            is_answered = true;
        }
        if is_answered {
            return Poll::Ready(Event::Answered);
        }
        if alarm.poll(context).is_ready() {
            return Poll::Ready(Event::Alarm);
        }
        if !is_open {
            return Poll::Pending;
        }
        if self.wake.take_due() {
            return Poll::Ready(Event::Woken);
        }
        if let Some(line) = &mut self.line
            && let Poll::Ready(turn) = line.as_mut().poll(context)
        {
            self.line = None;
            return Poll::Ready(Event::Turn(turn));
        }
        let is_listening = self.deadline.is_none() && self.session.is_listening();
        if is_listening && self.wake.take_arrived() {
            let hearing = &mut Context::from_waker(&self.hearing);
            if let Poll::Ready(frame) = transport.poll_receive(hearing) {
                self.wake.leave_arrived();
                return Poll::Ready(frame.map_or(Event::Left, Event::Frame));
            }
        }
        match self.more && !self.session.has_frames() {
            true => Poll::Ready(Event::More),
            false => Poll::Pending,
        }
    }

    /// Ready when nothing is left to be passed on. What a transport has begun to pass on it
    /// finishes before anything else, whatever happens in between.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        transport: &mut impl Transport,
    ) -> Poll<Result<(), Lost>> {
        let (mut frames, mut bytes) = (0, 0);
        let mut ready = Poll::Ready(());
        while self.session.has_frames() {
            ready = transport.poll_ready(context)?;
            if ready.is_pending() {
                break;
            }
            if let Some(frame) = self.session.poll_frame() {
                (frames, bytes) = (frames + 1, bytes + frame.len());
                transport.give(frame)?;
                self.is_unflushed = true;
            }
        }
        metrics::frames_out(frames, bytes);
        ready!(ready);
        if self.is_unflushed {
            ready!(transport.poll_flush(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Pumps in place while memory suffices, and on a blocking thread when the storage is read:
    /// in a turn, or it stands in line for one.
    async fn pump(&mut self, turn: Option<Turn>) -> Result<bool, StorageError> {
        let now = clock::now();
        if !self.session.needs_storage() {
            self.line = None;
            let pumped = self.session.pump(&mut NoReader, now).now_or_never();
            return match pumped {
                // What it needs has left memory since: with a reader, then.
                None | Some(Err(StorageError::Busy)) => Ok(true),
                Some(pumped) => pumped,
            };
        }
        let Some(turn) = turn else {
            if self.line.is_none() {
                let turn = self.shared.turn_of(self.session.identity());
                self.line = Some(Box::pin(turn));
            }
            return Ok(false);
        };
        let mut moved = self.session.take();
        let runtime = tokio::runtime::Handle::current();
        let pump = move |reader: &mut B::Reader| {
            let pumped = runtime.block_on(moved.pump(reader, now));
            Ok((pumped, moved))
        };
        // By itself, so that sessions which read nothing keep no room for it.
        let (pumped, moved) = Box::pin(self.shared.read_in(turn, pump)).await?;
        self.session = moved;
        pumped
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    /// A socket that takes a little at a time, and tells when it has taken all.
    struct Slow {
        left: u32,
        is_through: Arc<Notify>,
    }

    impl Transport for Slow {
        fn poll_receive(&mut self, _: &mut Context<'_>) -> Poll<Option<Incoming>> {
            Poll::Pending
        }

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Lost>> {
            Poll::Ready(Ok(()))
        }

        fn give(&mut self, _: Bytes) -> Result<(), Lost> {
            Ok(())
        }

        fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
            if let Some(left) = self.left.checked_sub(1) {
                self.left = left;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.is_through.notify_one();
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_socket_has_begun_goes_on_while_a_session_waits_for_others() {
        let is_through = Arc::new(Notify::new());
        let mut socket = Slow {
            left: 100,
            is_through: Arc::clone(&is_through),
        };
        // Whoever is waited for takes until all of it has left.
        let work = async {
            is_through.notified().await;
            "done"
        };
        let waited = passing_on(&mut socket, true, work);
        let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
        assert_eq!(waited, Ok("done"), "it was passed on");

        // A socket that has nothing is let alone.
        socket.left = 7;
        passing_on(&mut socket, false, tokio::task::yield_now()).await;
        assert_eq!(socket.left, 7);
    }
}
