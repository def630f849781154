//! Drives one [`Session`]: between a pair of frame channels, the committer and the readers.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::FutureExt;
use syncline_core::{
    rules::Identity,
    wire::{PushResult, Refusal},
};
use syncline_store::{StorageError, Submission};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Backend, Shared, clock, committer::Request, no_reader::NoReader};
use crate::{Action, Session, SessionId, session::Opened};

/// Frames that may wait between session and socket: the socket's own buffers come on top.
pub(crate) const FRAMES_WAITING: usize = 8;

/// The two ends of a transport.
pub(crate) struct Frames {
    pub(crate) incoming: mpsc::Receiver<Vec<u8>>,
    pub(crate) outgoing: mpsc::Sender<Vec<u8>>,
}

/// What a session waits for from the committer, in order.
enum Pending {
    Open(oneshot::Receiver<Result<Opened, Refusal>>),
    Commit(syncline_core::ChangesetId, oneshot::Receiver<PushResult>),
}

/// Runs a session until either side ends it. The caller has counted the connection.
pub(crate) async fn drive<B: Backend>(
    shared: Arc<Shared<B>>,
    identity: Arc<Identity>,
    mut frames: Frames,
) {
    let id = shared.next_session();
    let wake = Arc::new(Notify::new());
    shared.register(id, Arc::clone(&wake));
    let mut session = Session::new(shared.context(), Arc::clone(&identity), clock::now());
    let mut run = Run {
        shared: Arc::clone(&shared),
        id,
        pending: VecDeque::new(),
    };
    let mut stop = shared.stopping();
    let mut generation = shared.generation();
    let mut more = false;
    loop {
        if run.act(&mut session).await.is_break() {
            break;
        }
        let timeout = clock::until(session.poll_timeout());
        let has_frame = session.has_frames();
        tokio::select! {
            permit = frames.outgoing.reserve(), if has_frame => {
                let Ok(permit) = permit else { break };
                if let Some(frame) = session.poll_frame() {
                    permit.send(frame);
                }
                if session.has_frames() { continue }
            }
            frame = frames.incoming.recv(), if !session.is_closed() => match frame {
                Some(frame) => session.receive(&frame, clock::now()),
                None => break,
            },
            answered = run.next_answer(), if !run.pending.is_empty() => answered.give(&mut session),
            () = wake.notified() => {}
            () = std::future::ready(()), if more && !has_frame => {}
            _ = stop.changed() => session.go_away(1_000),
            _ = generation.changed() => session.go_away(1),
            () = tokio::time::sleep(timeout) => session.timeout(clock::now()),
        }
        if session.is_closed() && !session.has_frames() {
            break;
        }
        match run.pump(&mut session).await {
            Ok(again) => more = again,
            Err(error) => {
                tracing::warn!(%error, "a session could not read; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
                more = true;
            }
        }
    }
    shared.unregister(id);
}

struct Run<B: Backend> {
    shared: Arc<Shared<B>>,
    id: SessionId,
    pending: VecDeque<Pending>,
}

enum Answer {
    Opened(Result<Opened, Refusal>),
    Committed(PushResult),
    /// The committer is gone: the server stops.
    Stopping,
}

impl Answer {
    fn give(self, session: &mut Session) {
        match self {
            Self::Opened(result) => session.opened(result),
            Self::Committed(result) => session.committed(&result),
            Self::Stopping => session.go_away(1_000),
        }
    }
}

impl<B: Backend> Run<B> {
    /// Does what the session asks for; breaks when the server is stopping.
    async fn act(&mut self, session: &mut Session) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        while let Some(action) = session.poll_action() {
            match action {
                Action::Open(hello) => {
                    let (answer, answered) = oneshot::channel();
                    let user = session.user().clone();
                    if self
                        .shared
                        .request(Request::Open(hello, user, answer))
                        .await
                        .is_err()
                    {
                        return Break(());
                    }
                    self.pending.push_back(Pending::Open(answered));
                }
                Action::Commit(request) => {
                    let (answer, answered) = oneshot::channel();
                    let id = request.changeset.id;
                    let submission = Submission {
                        identity: Arc::clone(session.identity()),
                        device: session.device(),
                        changeset: request.changeset,
                        sent: request.sent,
                        refused: request.refused,
                    };
                    let request = Request::Commit(Box::new(submission), answer);
                    if self.shared.request(request).await.is_err() {
                        return Break(());
                    }
                    self.pending.push_back(Pending::Commit(id, answered));
                }
                Action::Renew(token) => {
                    session.renewed(self.shared.auth.verify(&token).map(Arc::new));
                }
                Action::Watch => {
                    if let Some(sight) = session.sight() {
                        self.shared
                            .hub
                            .lock()
                            .watch(self.id, session.device(), sight);
                    }
                }
                Action::Close => {}
            }
        }
        Continue(())
    }

    async fn next_answer(&mut self) -> Answer {
        // Awaiting by reference keeps this safe to cancel.
        let answer = match self.pending.front_mut() {
            Some(Pending::Open(answered)) => {
                answered.await.map_or(Answer::Stopping, Answer::Opened)
            }
            Some(Pending::Commit(_, answered)) => {
                answered.await.map_or(Answer::Stopping, Answer::Committed)
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
            return pumped.unwrap_or(Ok(true));
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
