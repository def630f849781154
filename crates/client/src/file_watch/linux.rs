//! Writes told by inotify.
//!
//! Read when somebody waits and not before: until then the kernel joins the many writes of a
//! commit, our own above all, into one event.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};

/// Most bytes of events that are read at once.
const BUFFER: usize = 4096;

pub(crate) struct Told {
    events: EventStream<Box<[u8]>>,
    names: Vec<OsString>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Told {
    /// `path`: of the database; `files`: it and what is written beside it. In a runtime.
    pub(crate) fn new(path: &Path, files: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // The folder: journals come and go.
        let folder = path.parent().unwrap_or(Path::new("/"));
        let what = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        inotify.watches().add(folder, what)?;
        let names = files.iter().filter_map(|file| file.file_name());
        Ok(Self {
            events: inotify.into_event_stream(vec![0; BUFFER].into_boxed_slice())?,
            names: names.map(OsString::from).collect(),
        })
    }

    /// Ends when one of the files was written. Can be dropped and called again.
    pub(crate) async fn wait(&mut self) {
        while let Some(Ok(event)) = self.events.next().await {
            let is_ours = match &event.name {
                Some(name) => self.names.contains(name),
                None => event.mask.contains(EventMask::Q_OVERFLOW),
            };
            if is_ours {
                return;
            }
        }
        // Nothing more is told; the file is looked at all the same.
        std::future::pending::<()>().await;
    }
}
