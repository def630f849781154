//! Small words for tests: a schema of projects and tasks, changesets, and a world of users and
//! devices around a storage.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that goes wrong is to stop where it does"
)]

mod audit;
mod draw;
mod external;
mod grouping;
mod past;
mod schema;
mod world;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::{self, Thread},
};

pub use audit::{Audit, Derived};
pub use draw::Draw;
pub use external::External;
pub use grouping::{Step, grouping_is_invisible};
pub use past::past_agrees_with_log;
pub use schema::{column, demo_schema, table};
pub use world::{Pushed, World, context_of};

/// Runs a future on this thread. Whatever it waits for has its own thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
