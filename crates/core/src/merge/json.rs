//! JSON texts taken apart without losing a byte, so that an edit of one member leaves the rest of
//! the text as the app wrote it (spec ME11).
//!
//! serde_json keeps number texts and member order only through features that Cargo would switch on
//! for the whole program this library is linked into; hence a scanner of our own.

mod canonical;
mod scan;

use std::{borrow::Cow, collections::BTreeMap, fmt};

pub(crate) use canonical::canonical;

/// Deepest nesting of arrays and objects; a deeper text is treated as no JSON (spec ME11).
pub(crate) const DEPTH_MAX: usize = 128;

/// A JSON text: one value and the white space around it.
#[derive(Debug, Clone)]
pub(crate) struct Document<'a> {
    lead: &'a str,
    pub(crate) root: Json<'a>,
    tail: &'a str,
}

/// A JSON value with its layout.
#[derive(Debug, Clone)]
pub(crate) enum Json<'a> {
    /// null, true, false, a number or a string, as written.
    Scalar(Cow<'a, str>),
    Array(Array<'a>),
    Object(Object<'a>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Array<'a> {
    elements: Vec<Element<'a>>,
    /// White space before the closing bracket.
    close: &'a str,
}

#[derive(Debug, Clone)]
struct Element<'a> {
    lead: &'a str,
    value: Json<'a>,
    /// White space before the comma.
    tail: &'a str,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Object<'a> {
    members: Vec<Member<'a>>,
    /// Decoded key → position in `members`, without removed ones.
    index: BTreeMap<Cow<'a, str>, usize>,
    close: &'a str,
}

#[derive(Debug, Clone)]
struct Member<'a> {
    lead: &'a str,
    /// With its quotes, as written.
    key: Cow<'a, str>,
    /// The colon and the white space around it.
    colon: &'a str,
    /// `None` once removed.
    value: Option<Json<'a>>,
    tail: &'a str,
}

impl<'a> Document<'a> {
    /// The document that `text` is, or `None` if it is no JSON, nests deeper than [`DEPTH_MAX`] or
    /// has an object with the same member twice.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        scan::document(text)
    }

    /// The text `null`.
    pub(crate) fn null() -> Self {
        Self {
            lead: "",
            root: Json::Scalar(Cow::Borrowed("null")),
            tail: "",
        }
    }
}

impl<'a> Json<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        Document::parse(text).map(|document| document.root)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(text) if text == "null")
    }
    pub(crate) fn as_array(&self) -> Option<&Array<'a>> {
        if let Self::Array(array) = self {
            Some(array)
        } else {
            None
        }
    }
    pub(crate) fn as_array_mut(&mut self) -> Option<&mut Array<'a>> {
        if let Self::Array(array) = self {
            Some(array)
        } else {
            None
        }
    }
    pub(crate) fn as_object(&self) -> Option<&Object<'a>> {
        if let Self::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }
    pub(crate) fn as_object_mut(&mut self) -> Option<&mut Object<'a>> {
        if let Self::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }

    /// How many arrays and objects lie around the innermost value, this one counted.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Scalar(_) => 0,
            Self::Array(array) => 1 + array.items().map(Json::depth).max().unwrap_or(0),
            Self::Object(object) => {
                1 + object
                    .members()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
        }
    }
}

impl<'a> Array<'a> {
    pub(crate) fn items(&self) -> impl Iterator<Item = &Json<'a>> {
        self.elements.iter().map(|element| &element.value)
    }

    /// Puts `value` at the end, spaced like the elements before it.
    pub(crate) fn push(&mut self, value: Json<'a>) {
        let lead = next_lead(self.elements.iter().map(|element| element.lead));
        self.elements.push(Element {
            lead,
            value,
            tail: "",
        });
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Json<'a>) -> bool) {
        let first = self.elements.first().map_or("", |element| element.lead);
        self.elements.retain(|element| keep(&element.value));
        if let Some(element) = self.elements.first_mut() {
            element.lead = first;
        }
    }
}

impl<'a> Object<'a> {
    /// Keys (decoded) and values, in the order of the text.
    pub(crate) fn members(&self) -> impl Iterator<Item = (String, &Json<'a>)> {
        let live = self
            .members
            .iter()
            .filter_map(|m| Some((&m.key, m.value.as_ref()?)));
        live.map(|(key, value)| {
            let key = scan::decoded(key).expect("the scanner decoded this key before");
            (key.into_owned(), value)
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.index
            .get(key)
            .and_then(|&at| self.members[at].value.as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Json<'a>> {
        self.index
            .get(key)
            .and_then(|&at| self.members[at].value.as_mut())
    }

    /// Replaces the member in its place, or puts it at the end, spaced like those before it.
    pub(crate) fn set(&mut self, key: &str, value: Json<'a>) {
        if let Some(present) = self.get_mut(key) {
            *present = value;
            return;
        }
        let lead = next_lead(self.members.iter().map(|member| member.lead));
        let colon = self.members.first().map_or(":", |member| member.colon);
        let text = Cow::Owned(canonical::string(key));
        self.index
            .insert(Cow::Owned(key.to_owned()), self.members.len());
        self.members.push(Member {
            lead,
            key: text,
            colon,
            value: Some(value),
            tail: "",
        });
    }

    /// Whether there was such a member.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let Some(at) = self.index.remove(key) else {
            return false;
        };
        self.members[at].value = None;
        true
    }
}

/// The white space to put before one more entry: that of the second entry where there is one,
/// since the first stands behind a bracket and not a comma.
fn next_lead<'a>(mut leads: impl Iterator<Item = &'a str>) -> &'a str {
    let first = leads.next().unwrap_or("");
    leads
        .next()
        .unwrap_or(if first.contains('\n') { first } else { "" })
}

impl fmt::Display for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.lead, self.root, self.tail)
    }
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(text) => f.write_str(text),
            Self::Array(array) => {
                f.write_str("[")?;
                for (i, Element { lead, value, tail }) in array.elements.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{lead}{value}{tail}")?;
                }
                write!(f, "{}]", array.close)
            }
            Self::Object(object) => {
                f.write_str("{")?;
                let mut comma = "";
                for Member {
                    lead,
                    key,
                    colon,
                    value,
                    tail,
                } in &object.members
                {
                    let Some(value) = value else { continue };
                    // The first entry that is left takes the place behind the bracket.
                    let lead = if comma.is_empty() {
                        object.members[0].lead
                    } else {
                        lead
                    };
                    write!(f, "{comma}{lead}{key}{colon}{value}{tail}")?;
                    comma = ",";
                }
                write!(f, "{}}}", object.close)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Texts near JSON: real ones with a byte or two changed.
    fn near_json() -> impl Strategy<Value = String> {
        let snippets = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"a\":",
            "1",
            "-",
            "0",
            ".5",
            "e+1",
            "E",
            " ",
            "\n",
            "true",
            "nul",
            "null",
            "\\",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\ud800",
            "é",
            "\u{1}",
        ];
        let snippets: Vec<&'static str> = snippets.to_vec();
        prop::collection::vec(prop::sample::select(snippets), 0..9).prop_map(|parts| parts.concat())
    }

    fn check_against_serde(text: &str) -> Result<(), TestCaseError> {
        let known: Result<&RawValue, _> = serde_json::from_str(text);
        // serde_json's raw values let through half surrogates and doubled members.
        if let Some(document) = Document::parse(text) {
            prop_assert!(known.is_ok(), "{text}");
            prop_assert_eq!(document.to_string(), text);
            let again = canonical(&Json::parse(&canonical(&document.root)).unwrap());
            prop_assert_eq!(again, canonical(&document.root));
        } else if !text.contains("\\ud8") && !text.contains("\"a\"") {
            prop_assert!(known.is_err(), "{text}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn me11_a_document_is_its_text(text in crate::merge::tests::json_text()) {
            prop_assert!(Document::parse(&text).is_some(), "{text}");
            check_against_serde(&text)?;
            let same: serde_json::Value = serde_json::from_str(&text).unwrap();
            let (ours, compact) = (Json::parse(&text).unwrap(), same.to_string());
            prop_assert_eq!(canonical(&ours), canonical(&Json::parse(&compact).unwrap()));
        }

        #[test]
        fn me11_only_json_is_a_document(text in near_json()) {
            check_against_serde(&text)?;
        }
    }

    #[test]
    fn me11_doubled_members_half_characters_and_depth_are_no_documents() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for text in [
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "\"\\ud800\"",
            "",
            "1 2",
            "[1,]",
        ] {
            assert!(Document::parse(text).is_none(), "{text}");
        }
        assert!(Document::parse(&nested(DEPTH_MAX)).is_some());
        assert!(Document::parse(&nested(DEPTH_MAX + 1)).is_none());
    }
}
