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
    /// Changes in one changeset.
    pub changeset_rows: u32,
    /// Bytes of the keys and values in one changeset.
    pub changeset_bytes: u32,
    /// Bytes of the key and values in one change of a row.
    pub row_bytes: u32,
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
            changeset_rows: most(CHANGES_MAX),
            changeset_bytes: most(CHANGESET_BYTES_MAX),
            row_bytes: most(CHANGESET_BYTES_MAX),
        }
    }
}

/// One key of the section.
#[derive(Debug)]
pub struct Limit {
    pub name: &'static str,
    /// What is counted, in the plural.
    pub what: &'static str,
    pub range: RangeInclusive<u32>,
    pub get: fn(&LimitsConfig) -> u32,
    set: fn(&mut LimitsConfig, u32),
}

macro_rules! limit {
    ($name:ident, $what:literal, $range:expr) => {
        Limit {
            name: stringify!($name),
            what: $what,
            range: $range,
            get: |limits| limits.$name,
            set: |limits, value| limits.$name = value,
        }
    };
}

impl LimitsConfig {
    /// Every key, in the order in which they are written.
    pub const KEYS: [Limit; 9] = [
        limit!(user_connections, "connections", 1..=u32::MAX),
        // What one message of a device can ask for.
        limit!(
            device_subscriptions,
            "subscriptions",
            0..=most(SUBSCRIPTIONS_MAX)
        ),
        // What any client needs to say hello and to take pages.
        limit!(messages_per_second, "messages", 10..=u32::MAX),
        // Ten seconds' worth has to be more than the longest frame.
        limit!(bytes_per_second, "bytes", 256 * 1024..=u32::MAX),
        limit!(user_requests_per_second, "requests", 1..=u32::MAX),
        limit!(address_requests_per_second, "requests", 1..=u32::MAX),
        limit!(changeset_rows, "rows", 1..=most(CHANGES_MAX)),
        limit!(changeset_bytes, "bytes", 1024..=most(CHANGESET_BYTES_MAX)),
        limit!(row_bytes, "bytes", 1024..=most(CHANGESET_BYTES_MAX)),
    ];
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
    ("rows", "changeset_rows"),
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
        let example = get(&LimitsConfig::default()).to_string();
        if let Some(value) = number(&mut keys, name, range, what, &example, m) {
            set(&mut limits, value);
        }
    }
    keys.finish(SYNONYMS, m);
    limits
}
