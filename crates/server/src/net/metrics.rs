//! Counters for Prometheus. Labels are few and fixed: never a user, a row or a table.

use std::{
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use axum::http::HeaderMap;
use metrics::{
    Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use syncline_store::LogEntry;

/// Who may read the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whoever can connect.
    Everybody,
    /// Whoever connects from this machine; who comes through a proxy has to be an administrator.
    ThisMachine,
    Administrators,
}

impl Readers {
    /// Whether a request with these headers has to show an administrator's token.
    pub(crate) fn needs_token(self, headers: &HeaderMap) -> bool {
        match self {
            Self::Everybody => false,
            Self::ThisMachine => FORWARDING.iter().any(|name| headers.contains_key(*name)),
            Self::Administrators => true,
        }
    }
}

/// Headers in which proxies say for whom they ask.
const FORWARDING: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// The process's recorder: there can be only one, whoever starts a server first installs it.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Renders what was counted.
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    pub(crate) fn install() -> Self {
        let handle = RECORDER.get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Somebody else's recorder in this process: ours then renders nothing.
            drop(metrics::set_global_recorder(recorder));
            describe();
            handle
        });
        Self(handle.clone())
    }

    pub(crate) fn render(&self, connections: usize, log_head: u64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "gauges are approximate")]
        {
            gauge!("syncline_connections").set(connections as f64);
            gauge!("syncline_log_head_seconds").set(log_head as f64 / 1e6);
        }
        self.0.render()
    }
}

fn describe() {
    describe_gauge!("syncline_connections", "Sessions that are open now.");
    describe_gauge!(
        "syncline_log_head_seconds",
        "Time of the newest version of the log."
    );
    describe_counter!(
        "syncline_changesets_total",
        "Changesets answered, by verdict."
    );
    describe_counter!("syncline_changes_total", "Row changes written to the log.");
    describe_counter!(
        "syncline_groups_failed_total",
        "Groups the storage could not commit."
    );
    describe_histogram!("syncline_commit_seconds", "Time to commit a group durably.");
    describe_counter!("syncline_frames_total", "Frames of sessions, by direction.");
    describe_counter!(
        "syncline_bytes_total",
        "Bytes of frames of sessions, by direction."
    );
    describe_counter!("syncline_sessions_total", "Sessions that were opened.");
}

pub(crate) fn committed(
    changesets: usize,
    refused: usize,
    entries: &[Arc<LogEntry>],
    took: Duration,
) {
    counter!("syncline_changesets_total", "verdict" => "accepted")
        .increment((changesets - refused) as u64);
    counter!("syncline_changesets_total", "verdict" => "refused").increment(refused as u64);
    let changes: usize = entries.iter().map(|entry| entry.records.len()).sum();
    counter!("syncline_changes_total").increment(changes as u64);
    if changesets > 0 {
        histogram!("syncline_commit_seconds").record(took);
    }
}

pub(crate) fn commit_failed() {
    counter!("syncline_groups_failed_total").increment(1);
}

pub(crate) fn session_opened() {
    counter!("syncline_sessions_total").increment(1);
}

/// Frames and bytes of one direction. Looked up once: by name for each frame they would cost more
/// than the frame's encoding.
struct Flow {
    frames: Counter,
    bytes: Counter,
}

impl Flow {
    fn new(direction: &'static str) -> Self {
        Self {
            frames: counter!("syncline_frames_total", "direction" => direction),
            bytes: counter!("syncline_bytes_total", "direction" => direction),
        }
    }

    fn count(&self, frames: u64, bytes: usize) {
        // All sessions count here.
        if frames > 0 {
            self.frames.increment(frames);
            self.bytes.increment(bytes as u64);
        }
    }
}

/// First used by a session, so after [`Metrics::install`].
static IN: LazyLock<Flow> = LazyLock::new(|| Flow::new("in"));
static OUT: LazyLock<Flow> = LazyLock::new(|| Flow::new("out"));

pub(crate) fn frame_in(bytes: usize) {
    IN.count(1, bytes);
}

pub(crate) fn frames_out(frames: u64, bytes: usize) {
    OUT.count(frames, bytes);
}
