//! One pass over a JSON text (RFC 8259), strict, with bounded recursion.

use std::borrow::Cow;

use super::{Array, DEPTH_MAX, Document, Element, Json, Member, Object};

pub(super) fn document(text: &str) -> Option<Document<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    let lead = scanner.space();
    let root = scanner.value(DEPTH_MAX)?;
    let tail = scanner.space();
    (scanner.at == text.len()).then_some(Document { lead, root, tail })
}

/// The text that a quoted JSON string stands for; `None` for half a surrogate pair.
pub(super) fn decoded(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.bytes().all(|byte| byte != b'\\' && byte >= b' ') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(quoted).ok().map(Cow::Owned)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn space(&mut self) -> &'a str {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn value(&mut self, depth: usize) -> Option<Json<'a>> {
        match self.peek()? {
            b'{' => self.object(depth.checked_sub(1)?).map(Json::Object),
            b'[' => self.array(depth.checked_sub(1)?).map(Json::Array),
            b'"' => self
                .string()
                .map(|(quoted, _)| Json::Scalar(Cow::Borrowed(quoted))),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &'static str) -> Option<Json<'a>> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            Json::Scalar(Cow::Borrowed(word))
        })
    }

    fn number(&mut self) -> Option<Json<'a>> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(Json::Scalar(Cow::Borrowed(&self.text[start..self.at])))
    }

    fn digits(&mut self) -> Option<()> {
        (!self.take_while(|byte| byte.is_ascii_digit()).is_empty()).then_some(())
    }

    /// The string with its quotes, and decoded.
    fn string(&mut self) -> Option<(&'a str, Cow<'a, str>)> {
        let start = self.at;
        if !self.take(b'"') {
            return None;
        }
        loop {
            self.take_while(|byte| byte != b'"' && byte != b'\\');
            if self.take(b'"') {
                let quoted = &self.text[start..self.at];
                return Some((quoted, decoded(quoted)?));
            }
            // A backslash and the ASCII character it escapes.
            let escaped = self.text.as_bytes().get(self.at + 1)?;
            if !escaped.is_ascii() {
                return None;
            }
            self.at += 2;
        }
    }

    fn array(&mut self, depth: usize) -> Option<Array<'a>> {
        let mut array = Array::default();
        self.at += 1;
        loop {
            let lead = self.space();
            if array.elements.is_empty() && self.take(b']') {
                array.close = lead;
                return Some(array);
            }
            let value = self.value(depth)?;
            let tail = self.space();
            if self.take(b']') {
                array.elements.push(Element {
                    lead,
                    value,
                    tail: "",
                });
                array.close = tail;
                return Some(array);
            }
            array.elements.push(Element { lead, value, tail });
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Object<'a>> {
        let mut object = Object::default();
        self.at += 1;
        loop {
            let lead = self.space();
            if object.members.is_empty() && self.take(b'}') {
                object.close = lead;
                return Some(object);
            }
            let (quoted, key) = self.string()?;
            let colon = self.colon()?;
            let value = Some(self.value(depth)?);
            let tail = self.space();
            let last = self.take(b'}');
            if object.index.insert(key, object.members.len()).is_some() {
                return None;
            }
            let key = Cow::Borrowed(quoted);
            let after = if last { "" } else { tail };
            object.members.push(Member {
                lead,
                key,
                colon,
                value,
                tail: after,
            });
            if last {
                object.close = tail;
                return Some(object);
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn colon(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.space();
        if !self.take(b':') {
            return None;
        }
        self.space();
        Some(&self.text[start..self.at])
    }
}
