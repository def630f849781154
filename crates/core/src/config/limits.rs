//! `[limits]`: what one person, connection or address may take (docs/limits.md).

use std::ops::RangeInclusive;

use toml::de::DeTable;

use super::{error::Mistakes, keys::Keys, server::number};
use crate::wire::{CHANGES_MAX, CHANGESET_BYTES_MAX, SUBSCRIPTIONS_MAX};

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Sessions that one user may have at once.
    pub user_connections: u32,
    /// Things that one device may subscribe to at once.
    pub device_subscriptions: u32,
    /// Messages that one connection may send in a second.
    pub messages_per_second: u32,
    /// Bytes that one connection may send in a second.
    pub bytes_per_second: u32,
    /// HTTP requests that one user may make in a second.
    pub user_requests_per_second: u32,
    /// HTTP requests that may come from one address in a second.
    pub address_requests_per_second: u32,
    /// Sessions and requests of one user that read the database at the same moment.
    pub user_reads: u32,
    /// Changes in one changeset.
    pub changeset_rows: u32,
    /// Bytes of the keys and values in one changeset.
    pub changeset_bytes: u32,
    /// Bytes of the key and values in one change of a row.
    pub row_bytes: u32,
    /// Rows that one user may own; zero: as many as there is room for.
    pub user_rows: u64,
    /// Bytes of the keys and values in the rows that one user owns; zero: not counted.
    pub user_bytes: u64,
    /// Rows that one device may load; zero: as many as its user may see.
    pub device_rows: u64,
}

impl LimitsConfig {
    /// Whether what users own has to be counted.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.user_rows > 0 || self.user_bytes > 0
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            user_connections: 64,
            device_subscriptions: 1_000,
            messages_per_second: 5_000,
            bytes_per_second: 32 * 1024 * 1024,
            user_requests_per_second: 100,
            address_requests_per_second: 1_000,
            user_reads: 1,
            changeset_rows: most(CHANGES_MAX),
            changeset_bytes: most(CHANGESET_BYTES_MAX),
            row_bytes: most(CHANGESET_BYTES_MAX),
            user_rows: 0,
            user_bytes: 0,
            device_rows: 0,
        }
    }
}

/// One key of the section.
#[derive(Debug)]
pub struct Limit {
    pub name: &'static str,
    /// What is counted, in the plural.
    pub what: &'static str,
    pub range: RangeInclusive<u64>,
    pub get: fn(&LimitsConfig) -> u64,
    set: fn(&mut LimitsConfig, u64),
}

macro_rules! limit {
    ($name:ident, $what:literal, $range:expr) => {
        Limit {
            name: stringify!($name),
            what: $what,
            range: $range,
            get: |limits| u64::from(limits.$name),
            set: |limits, value| {
                limits.$name = value.try_into().expect("the range is the field's");
            },
        }
    };
}

/// Up to what a field of 32 bits holds.
const MOST: u64 = u32::MAX as u64;
/// More than any disk holds.
const QUOTA_MAX: u64 = 1_000_000_000_000_000;

impl LimitsConfig {
    /// Every key, in the order in which they are written.
    pub const KEYS: [Limit; 13] = [
        limit!(user_connections, "connections", 1..=MOST),
        // What one message of a device can ask for.
        limit!(
            device_subscriptions,
            "subscriptions",
            0..=wire(SUBSCRIPTIONS_MAX)
        ),
        // What any client needs to say hello and to take pages.
        limit!(messages_per_second, "messages", 10..=MOST),
        // Ten seconds' worth has to be more than the longest frame.
        limit!(bytes_per_second, "bytes", 256 * 1024..=MOST),
        limit!(user_requests_per_second, "requests", 1..=MOST),
        limit!(address_requests_per_second, "requests", 1..=MOST),
        limit!(user_reads, "reads", 1..=MOST),
        limit!(changeset_rows, "rows", 1..=wire(CHANGES_MAX)),
        limit!(changeset_bytes, "bytes", 1024..=wire(CHANGESET_BYTES_MAX)),
        limit!(row_bytes, "bytes", 1024..=wire(CHANGESET_BYTES_MAX)),
        limit!(user_rows, "rows", 0..=QUOTA_MAX),
        limit!(user_bytes, "bytes", 0..=QUOTA_MAX),
        limit!(device_rows, "rows", 0..=QUOTA_MAX),
    ];
}

/// What the wire takes at most, in a range.
const fn wire(of_wire: usize) -> u64 {
    most(of_wire) as u64
}

/// What the wire takes at most, as a limit.
const fn most(of_wire: usize) -> u32 {
    assert!(of_wire <= u32::MAX as usize, "the wire takes no more");
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let most = of_wire as u32;
    most
}

const SYNONYMS: &[(&str, &str)] = &[
    ("connections", "user_connections"),
    ("connections_per_user", "user_connections"),
    ("subscriptions", "device_subscriptions"),
    ("subscriptions_max", "device_subscriptions"),
    ("messages", "messages_per_second"),
    ("bytes", "bytes_per_second"),
    ("rate", "user_requests_per_second"),
    ("requests", "user_requests_per_second"),
    ("requests_per_second", "user_requests_per_second"),
    ("changes", "changeset_rows"),
    ("rows", "user_rows"),
    ("rows_per_user", "user_rows"),
    ("quota", "user_bytes"),
    ("storage", "user_bytes"),
    ("rows_per_device", "device_rows"),
];

pub(super) fn parse(table: &DeTable<'_>, m: &mut Mistakes) -> LimitsConfig {
    let mut limits = LimitsConfig::default();
    let mut keys = Keys::new("limits", table);
    for Limit {
        name,
        what,
        range,
        get,
        set,
    } in LimitsConfig::KEYS
    {
        let example = match get(&LimitsConfig::default()) {
            0 => "1000000".to_owned(),
            usual => usual.to_string(),
        };
        if let Some(value) = number(&mut keys, name, range, what, &example, m) {
            set(&mut limits, value);
        }
    }
    keys.finish(SYNONYMS, m);
    limits
}
