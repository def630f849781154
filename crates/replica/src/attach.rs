//! What attaching a file is told.

use crate::replica::Topic;

/// How a file becomes a replica.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachOptions {
    pub tables: TableChoice,
    /// Creates tables that the server has and this file does not (`hydrate`).
    pub create_missing: bool,
    /// What is subscribed to from the start, so that rows of tables on demand stay in the file. The
    /// caller knows how many the server allows.
    pub subscriptions: Vec<Topic>,
    /// Whether the rows that are in the file already are sent to the server.
    pub seeding: Seeding,
    /// For the user's device list.
    pub device_name: String,
    /// Operating system and program, for the same list.
    pub platform: String,
    /// Where the driver connects to; kept for it, never used here.
    pub url: Option<String>,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            tables: TableChoice::All,
            create_missing: false,
            subscriptions: Vec::new(),
            seeding: Seeding::Send,
            device_name: String::new(),
            platform: String::new(),
            url: None,
        }
    }
}

/// Which tables sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChoice {
    /// Every table of the file that can sync and that the server knows.
    All,
    /// These, by name. A table that cannot sync is refused at attach with the reason.
    Only(Vec<String>),
}

/// What happens to rows that are in the file when it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeding {
    /// Each is sent as an insert, in bounded changesets; a row that the server has with equal
    /// content is merged without effect.
    Send,
    /// They are taken for copies of the server's rows: nothing is sent, pages replace them.
    /// For files where the comparison found every row equal.
    Skip,
}
