//! Functions of JavaScript that the engine calls from its own threads.
//!
//! None of them keeps the process alive: a program ends when it has nothing to wait for. All take
//! and give JSON, and packages/node sees to it that none throws.

use std::sync::Arc;

use napi::{
    Status,
    bindgen_prelude::Promise,
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};

/// Told something: events, progress.
pub(crate) type Tell = ThreadsafeFunction<String, (), String, Status, false, true>;
/// Asked something; answers with a promise.
pub(crate) type Ask = ThreadsafeFunction<String, Promise<String>, String, Status, false, true>;
pub(crate) type Decide = Arc<Ask>;

/// Tells without waiting.
pub(crate) fn tell(function: &Tell, json: String) {
    // A process that ends listens no more.
    let _status = function.call(json, ThreadsafeFunctionCallMode::NonBlocking);
}

/// Tells, and waits until it was heard, and with it everything told before.
pub(crate) async fn tell_and_wait(function: &Tell, json: String) {
    // A process that ends listens no more.
    let _result = function.call_async_catch(json).await;
}

/// What it answers; `None` if it does not, as in a process that ends.
pub(crate) async fn ask(function: &Ask, json: String) -> Option<String> {
    function.call_async_catch(json).await.ok()?.await.ok()
}
