//! Events on their way to JavaScript.

use napi::bindgen_prelude::spawn;
use syncline::Events;
use tokio::sync::{mpsc, oneshot};

use crate::{
    js::{self, Tell},
    told,
};

/// Questions whether everything was told; more callers wait.
const QUESTIONS_MAX: usize = 64;

/// Tells events in order, each when the one before was heard: what is not heard yet waits in the
/// library, which holds so many and no more.
pub(crate) struct Pump(mpsc::Sender<oneshot::Sender<()>>);

impl Pump {
    pub(crate) fn start(mut events: Events, listener: Tell) -> Self {
        let (questions_to, mut questions) = mpsc::channel::<oneshot::Sender<()>>(QUESTIONS_MAX);
        // It ends with the events.
        drop(spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(event) => {
                            js::tell_and_wait(&listener, told::event(&event).to_string()).await;
                        }
                        None => return,
                    },
                    Some(question) = questions.recv() => {
                        // Nobody may be waiting any more.
                        let _gone = question.send(());
                    }
                }
            }
        }));
        Self(questions_to)
    }

    /// Waits until everything that has happened by now was told.
    pub(crate) fn told(&self) -> impl Future<Output = ()> + use<> {
        let questions = self.0.clone();
        async move {
            let (answer_to, answer) = oneshot::channel();
            if questions.send(answer_to).await.is_ok() {
                // Without an answer there is nobody left to tell. A question that was sent while
                // the last one left is never read, nor dropped as long as somebody could ask.
                tokio::select! {
                    _ended = answer => {}
                    () = questions.closed() => {}
                }
            }
        }
    }
}
