//! Text for a terminal: what rows, names and servers say comes from strangers.

/// `text` with everything spelled out (`\u{202e}`) that could take over a terminal or show
/// something else than what is there: control characters but line breaks and tabs, marks that
/// turn the direction of writing, and what takes no room. Joiners stay where letters or emoji
/// need them, between two characters.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut before = None;
    while let Some(c) = chars.next() {
        let is_shown = match c {
            '\n' | '\t' => true,
            ZWNJ | ZWJ => {
                let is_letter = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && !is_unseen(c));
                is_letter(before) && is_letter(chars.peek().copied())
            }
            c => !c.is_control() && !is_unseen(c),
        };
        if is_shown {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        before = Some(c);
    }
    out
}

const ZWNJ: char = '\u{200C}';
const ZWJ: char = '\u{200D}';

/// Characters of Unicode's categories Cf, Zl and Zp, those excepted that are drawn (such as the
/// Arabic number signs).
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        assert_eq!(printable(text), shown);
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "two lines\nand\ta tab",
            "größe, 名前, שלום, مرحبا",
            "می\u{200C}خواهم",
            "👩\u{200D}👩\u{200D}👧 ❤\u{FE0F}",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn what_takes_over_a_terminal_is_spelled_out() {
        check("\u{1b}[2Jgone", "\\u{1b}[2Jgone");
        check("over\rwritten\u{7}", "over\\u{d}written\\u{7}");
        check("\u{9b}31m", "\\u{9b}31m");
    }

    #[test]
    fn what_shows_something_else_than_is_there_is_spelled_out() {
        check("invoice_\u{202e}fdp.exe", "invoice_\\u{202e}fdp.exe");
        check("\u{2066}a\u{2069}\u{61c}", "\\u{2066}a\\u{2069}\\u{61c}");
        check(
            "ad\u{200b}min\u{ad}\u{feff}",
            "ad\\u{200b}min\\u{ad}\\u{feff}",
        );
        check("ad\u{200d}min\u{200c}", "ad\\u{200d}min\\u{200c}");
        check("one\u{2028}line", "one\\u{2028}line");
        check("hidden\u{e0061}", "hidden\\u{e0061}");
    }
}
