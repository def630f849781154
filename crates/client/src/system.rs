//! The clock and the random numbers of this machine: the only place that asks for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncline_core::Timestamp;

/// Microseconds since 1970 by the system's clock.
#[must_use]
pub fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// How long until `then`; nothing if it has passed.
pub(crate) fn until(then: Timestamp) -> Duration {
    Duration::from_micros(then.0.saturating_sub(now().0))
}

/// Random bytes of the operating system.
///
/// # Panics
/// If the system has none: no id made then could be trusted to be unique.
pub(crate) fn entropy(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

/// A pause, with full jitter above half of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 4];
    entropy(&mut bytes);
    let half = pause / 2;
    half + half.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// A new row id: a UUID of version 7, so that rows made later sort later.
///
/// # Panics
/// If the operating system gives no random bytes.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0; 16];
    entropy(&mut bytes);
    bytes[..6].copy_from_slice(&now().as_millis().to_be_bytes()[2..]);
    bytes[6] = 0x70 | bytes[6] & 0x0F;
    bytes[8] = 0x80 | bytes[8] & 0x3F;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Operating system and program, for the device list.
pub(crate) fn platform() -> String {
    format!(
        "{} {} syncline/{}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION")
    )
}

/// This machine's name, for the device list.
pub(crate) fn device_name() -> String {
    let from_env = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    from_env
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "device".to_owned())
}
