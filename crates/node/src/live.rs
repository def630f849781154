//! Live queries.

use napi_derive::napi;
use serde_json::Value as Json;
use syncline::LiveQuery;
use tokio::sync::{Mutex, Notify};

use crate::{cell, failure::guarded};

/// The rows of a query, whenever they change.
#[napi]
pub struct Live {
    query: Mutex<Option<LiveQuery>>,
    closed: Notify,
}

impl Live {
    pub(crate) fn new(query: LiveQuery) -> Self {
        Self {
            query: Mutex::new(Some(query)),
            closed: Notify::new(),
        }
    }
}

#[napi]
impl Live {
    /// The next rows, as JSON; null at the end.
    #[napi]
    pub async fn next(&self) -> napi::Result<Option<String>> {
        guarded(async {
            let mut query = self.query.lock().await;
            let Some(live) = query.as_mut() else {
                return Ok(None);
            };
            let found = tokio::select! {
                found = live.next() => found,
                () = self.closed.notified() => None,
            };
            let Some(rows) = found else {
                query.take();
                return Ok(None);
            };
            let rows: Json = rows?.iter().map(cell::row).collect();
            Ok(Some(rows.to_string()))
        })
        .await
    }

    /// Ends it; whoever waits for rows gets none.
    #[napi]
    pub fn close(&self) {
        self.closed.notify_one();
    }
}
