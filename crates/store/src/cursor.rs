//! Cursors: places in the log that only this server can have named (spec ID2).

use syncline_core::{Cursor, DeviceId, Tag, UserId, Version};

/// The cursor at `version`, whose entry has `tag`, for this user on this device.
#[must_use]
pub fn sign_cursor(
    secret: &[u8; 32],
    user: &UserId,
    device: DeviceId,
    version: Version,
    tag: Tag,
) -> Cursor {
    let mut hash = blake3::Hasher::new_keyed(secret);
    hash.update(b"syncline cursor");
    hash.update(&(user.0.len() as u64).to_le_bytes())
        .update(user.0.as_bytes());
    hash.update(&device.0)
        .update(&version.0.to_le_bytes())
        .update(&tag.0);
    let mac = Tag::from_slice(&hash.finalize().as_bytes()[..8]);
    Cursor {
        version,
        tag,
        mac: mac.expect("a tag has 8 bytes"),
    }
}

/// Whether this server gave `cursor` to this user on this device. Whether the log still contains
/// it is another question.
#[must_use]
pub fn check_cursor(secret: &[u8; 32], user: &UserId, device: DeviceId, cursor: &Cursor) -> bool {
    let expected = sign_cursor(secret, user, device, cursor.version, cursor.tag).mac;
    let pairs = expected.0.iter().zip(cursor.mac.0);
    pairs.fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id2_a_cursor_is_bound_to_user_device_version_and_tag() {
        let secret = [7; 32];
        let (ada, ben) = (UserId("ada".into()), UserId("ben".into()));
        let (phone, laptop) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let cursor = sign_cursor(&secret, &ada, phone, Version(42), Tag([3; 8]));
        assert!(check_cursor(&secret, &ada, phone, &cursor));
        assert!(!check_cursor(&secret, &ben, phone, &cursor));
        assert!(!check_cursor(&secret, &ada, laptop, &cursor));
        assert!(!check_cursor(&[8; 32], &ada, phone, &cursor));
        for changed in [
            Cursor {
                version: Version(43),
                ..cursor
            },
            Cursor {
                tag: Tag([4; 8]),
                ..cursor
            },
            Cursor {
                mac: Tag([0; 8]),
                ..cursor
            },
        ] {
            assert!(!check_cursor(&secret, &ada, phone, &changed));
        }
    }
}
