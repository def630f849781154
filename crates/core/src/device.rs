//! What devices are called in their user's list (spec DE1).

/// Longest name and platform that are kept, in characters.
const NAME_CHARS_MAX: usize = 200;
/// What a device without a name is called.
const NAMELESS: &str = "device";

/// A name that a device may have: 1 to 200 characters, at least one of them no space, none of them
/// a control character or a mark that turns or hides text (spec DE1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName(String);

/// Why a text is no name of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    #[error("a device's name has at least one character that is no space")]
    Empty,
    #[error("the name has {0} characters; a device's name has at most {NAME_CHARS_MAX}")]
    TooLong(usize),
    #[error("the name has the character {}, which cannot be seen; leave it out", .0.escape_unicode())]
    Unseen(char),
}

impl DeviceName {
    /// Takes a name as somebody gave it; spaces around it are dropped.
    ///
    /// # Errors
    /// [`DeviceNameError`].
    pub fn new(text: &str) -> Result<Self, DeviceNameError> {
        let text = text.trim();
        let chars = text.chars().count();
        match text.chars().find(|c| is_unseen(*c)) {
            _ if text.is_empty() => Err(DeviceNameError::Empty),
            _ if chars > NAME_CHARS_MAX => Err(DeviceNameError::TooLong(chars)),
            Some(unseen) => Err(DeviceNameError::Unseen(unseen)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// A name as a device told it: what cannot be kept as it is becomes what can.
    #[must_use]
    pub fn told(text: &str) -> Self {
        let name = told_of_itself(text);
        Self(if name.is_empty() {
            NAMELESS.to_owned()
        } else {
            name
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that a device told of itself, such as its platform: spelled out, and cut where it is too
/// long.
#[must_use]
pub fn told_of_itself(text: &str) -> String {
    let mut out = String::new();
    // Each character is spelled out with at least one.
    for c in text.trim().chars().take(NAME_CHARS_MAX) {
        if is_unseen(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    match out.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => out[..end].to_owned(),
        None => out,
    }
}

/// Control characters, line and paragraph separators, and marks that turn text. Joiners are part
/// of names in some scripts and of emoji.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}' | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        DeviceName::told(text).0
    }

    #[test]
    fn de1_a_name_can_be_read_and_is_short() {
        let name = |text: &str| DeviceName::new(text).map(|name| name.0);
        assert_eq!(
            name("  Ana's 📱 👩\u{200D}👧 "),
            Ok("Ana's 📱 👩\u{200D}👧".into())
        );
        assert_eq!(name(" \t\n"), Err(DeviceNameError::Empty));
        assert_eq!(name(&"ä".repeat(200)), Ok("ä".repeat(200)));
        assert_eq!(name(&"ä".repeat(201)), Err(DeviceNameError::TooLong(201)));
        for unseen in [
            '\u{1b}', '\0', '\n', '\u{202e}', '\u{2066}', '\u{2028}', '\u{85}',
        ] {
            let text = format!("a{unseen}b");
            assert_eq!(name(&text), Err(DeviceNameError::Unseen(unseen)));
        }
    }

    #[test]
    fn de1_what_a_device_tells_is_spelled_out_and_cut() {
        assert_eq!(told("phone"), "phone");
        assert_eq!(told(" \r\n "), "device");
        assert_eq!(told("a\u{1b}[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        let long = told(&"\u{202e}x".repeat(10_000));
        assert_eq!(long.chars().count(), 200);
        assert!(long.starts_with("\\u{202e}x\\u{202e}x"));
        assert_eq!(told_of_itself(""), "");
    }
}
