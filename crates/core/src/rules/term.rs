//! What conditions compare: columns, what is known of the user, and literals.

use std::{borrow::Cow, cmp::Ordering};

use super::{Identity, RuleColumn, Stored};
use crate::{schema::ColumnType, value::Value};

/// A value looked at without copying it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

/// One of the row images a rule speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(pub(super) u8);

impl Place {
    /// The row that is judged; within a hop, the row of the hop.
    pub(super) const ROW: Self = Self(0);
    /// `old.`: the row before the change.
    pub(super) const OLD: Self = Self(1);
    /// `new.`: the row after the change.
    pub(super) const NEW: Self = Self(2);
    /// The first table of a subquery.
    pub(super) const FIRST_JOINED: u8 = 3;

    pub(super) fn is_joined(self) -> bool {
        self.0 >= Self::FIRST_JOINED
    }
}

/// A column of a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Field {
    Column(usize),
    Owner,
    CreatedAt,
    Version,
    ModifiedAt,
    ModifiedBy,
}

impl Field {
    /// The columns that every row has without being columns of the table.
    pub(super) const META: [(&'static str, Self); 5] = [
        ("_owner", Self::Owner),
        ("_created_at", Self::CreatedAt),
        ("_version", Self::Version),
        ("_last_modified_at", Self::ModifiedAt),
        ("_last_modified_by", Self::ModifiedBy),
    ];

    /// The column to look rows up by, if rows can be looked up by it.
    pub(super) fn lookup(self) -> Option<RuleColumn> {
        match self {
            Self::Column(position) => Some(RuleColumn::Column(position)),
            Self::Owner => Some(RuleColumn::Owner),
            Self::CreatedAt | Self::Version | Self::ModifiedAt | Self::ModifiedBy => None,
        }
    }

    /// The value in `stored`.
    pub(super) fn of(self, stored: &Stored) -> Seen<'_> {
        match self {
            Self::Column(position) => stored.row.0.get(position).map_or(Seen::Null, Seen::from),
            Self::Owner => Seen::user(stored.owner.as_ref()),
            Self::ModifiedBy => Seen::user(stored.author.as_ref()),
            Self::CreatedAt => Seen::Integer(stored.created.0.cast_signed()),
            Self::Version | Self::ModifiedAt => Seen::Integer(stored.version.0.cast_signed()),
        }
    }
}

impl From<RuleColumn> for Field {
    fn from(column: RuleColumn) -> Self {
        match column {
            RuleColumn::Column(position) => Self::Column(position),
            RuleColumn::Owner => Self::Owner,
        }
    }
}

impl<'a> From<&'a Value> for Seen<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(n) => Self::Integer(*n),
            Value::Real(x) if x.is_nan() => Self::Null,
            Value::Real(x) => Self::Real(*x),
            Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl<'a> Seen<'a> {
    fn user(user: Option<&'a crate::ids::UserId>) -> Self {
        user.map_or(Self::Null, |user| Self::Text(Cow::Borrowed(&user.0)))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// SQLite's comparison without affinity (spec RU5): numbers by value, then texts and blobs
    /// bytewise; any number before any text, any text before any blob. `None` with a NULL.
    pub(super) fn compare(&self, other: &Seen<'_>) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Null, _) | (_, Seen::Null) => return None,
            (Self::Integer(a), Seen::Integer(b)) => a.cmp(b),
            (Self::Real(a), Seen::Real(b)) => a.partial_cmp(b)?,
            (Self::Integer(a), Seen::Real(b)) => integer_with_real(*a, *b)?,
            (Self::Real(a), Seen::Integer(b)) => integer_with_real(*b, *a)?.reverse(),
            (Self::Text(a), Seen::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Blob(a), Seen::Blob(b)) => a.cmp(b),
            (a, b) => a.class().cmp(&b.class()),
        })
    }

    fn class(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Blob(_) => 3,
        }
    }

    /// Whether both are the same value, as `=` says; NULL equals nothing.
    pub(super) fn equals(&self, other: &Seen<'_>) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    /// The canonical values of a column of type `ty` that equal this value (spec RU6): none for
    /// NULL, two where 1 and 1.0 are both canonical.
    pub(super) fn forms(&self, ty: ColumnType) -> Vec<Value> {
        let (integer, real) = match self {
            Self::Null => return Vec::new(),
            Self::Integer(n) => (Some(*n), as_real(*n)),
            Self::Real(x) => (as_integer(*x), Some(*x)),
            Self::Text(text) => return vec![Value::Text(text.as_ref().to_owned())],
            Self::Blob(bytes) => return vec![Value::Blob(bytes.to_vec())],
        };
        let mut forms = Vec::new();
        for number in integer
            .map(Value::Integer)
            .into_iter()
            .chain(real.map(Value::Real))
        {
            let form = number.canonical(ty);
            // Columns of text hold no number, columns of reals not every integer.
            if Seen::from(&form).equals(self) && !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    /// Appends an encoding that two values share exactly when they are equal.
    ///
    /// Returns whether there is one: NULL has none.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> bool {
        let mut bytes = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend(bytes);
        };
        match self {
            Self::Null => return false,
            Self::Integer(n) => bytes(2, &n.to_le_bytes()),
            Self::Real(x) => match as_integer(*x) {
                Some(n) => bytes(2, &n.to_le_bytes()),
                None => bytes(3, &x.to_bits().to_le_bytes()),
            },
            Self::Text(text) => bytes(4, text.as_bytes()),
            Self::Blob(blob) => bytes(5, blob),
        }
        true
    }

    /// As a value of its own.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(n) => Value::Integer(n),
            Self::Real(x) => Value::Real(x),
            Self::Text(text) => Value::Text(text.into_owned()),
            Self::Blob(bytes) => Value::Blob(bytes.to_vec()),
        }
    }
}

/// 2^63: the first double above every integer.
const PAST_INTEGERS: f64 = 9_223_372_036_854_775_808.0;

/// The integer that equals `x`.
fn as_integer(x: f64) -> Option<i64> {
    let integral = x.fract() == 0.0 && (-PAST_INTEGERS..PAST_INTEGERS).contains(&x);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be integral and in range"
    )]
    integral.then_some(x as i64)
}

/// The double that equals `n`.
fn as_real(n: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "checked to come back unchanged")]
    let x = n as f64;
    (as_integer(x) == Some(n)).then_some(x)
}

fn integer_with_real(n: i64, x: f64) -> Option<Ordering> {
    if x.is_nan() {
        return None;
    }
    if x >= PAST_INTEGERS {
        return Some(Ordering::Less);
    }
    if x < -PAST_INTEGERS {
        return Some(Ordering::Greater);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "in range; the fraction is compared next"
    )]
    let whole = x.trunc() as i64;
    Some(n.cmp(&whole).then(0.0_f64.partial_cmp(&x.fract())?))
}

/// What is known of the user, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserTerm {
    pub(super) source: UserSource,
    pub(super) shape: Shape,
}

/// Where a value of the user comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserSource {
    /// `auth.uid()`.
    Uid,
    /// `auth.role()`: the claim `role`, else `authenticated` or `anon`.
    Role,
    /// `auth.claim('a', 'b')`: the member `b` of the claim `a`.
    Claim(Vec<String>),
}

/// What a value of the user is read as, given by what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    /// Text in the canonical form of a UUID.
    Uuid,
    Number,
    /// 0 or 1.
    Boolean,
    /// As JSON has it: for columns without a type.
    Natural,
}

impl UserTerm {
    /// The value for `identity`; NULL where there is none of this shape (spec RU8).
    pub(super) fn of<'a>(&self, identity: &'a Identity) -> Seen<'a> {
        match &self.source {
            UserSource::Uid => {
                let Some(user) = &identity.user else {
                    return Seen::Null;
                };
                self.shape.of_text(Cow::Borrowed(&user.0))
            }
            UserSource::Role => match identity.claims.get("role") {
                Some(role) => self.shape.of_json(role),
                None if identity.user.is_some() => self.shape.of_text("authenticated".into()),
                None => self.shape.of_text("anon".into()),
            },
            UserSource::Claim(path) => {
                let Some((first, members)) = path.split_first() else {
                    return Seen::Null;
                };
                let claim = identity.claims.get(first);
                let found = members
                    .iter()
                    .try_fold(claim, |json, name| Some(json?.get(name)));
                found
                    .flatten()
                    .map_or(Seen::Null, |json| self.shape.of_json(json))
            }
        }
    }
}

impl Shape {
    fn of_json(self, json: &serde_json::Value) -> Seen<'_> {
        use serde_json::Value as Json;
        match (self, json) {
            (_, Json::Null | Json::Array(_) | Json::Object(_)) => Seen::Null,
            (_, Json::String(text)) => self.of_text(Cow::Borrowed(text)),
            (Self::Number | Self::Natural, Json::Number(number)) => of_number(number),
            (Self::Text | Self::Uuid, Json::Number(number)) => {
                Seen::Text(number.to_string().into())
            }
            (Self::Boolean | Self::Natural, Json::Bool(yes)) => Seen::Integer(i64::from(*yes)),
            (Self::Text | Self::Uuid, Json::Bool(yes)) => Seen::Text(yes.to_string().into()),
            (Self::Boolean, Json::Number(_)) | (Self::Number, Json::Bool(_)) => Seen::Null,
        }
    }

    fn of_text(self, text: Cow<'_, str>) -> Seen<'_> {
        match self {
            Self::Text | Self::Natural => Seen::Text(text),
            Self::Uuid => match Value::Text(text.into_owned()).canonical(ColumnType::Uuid) {
                Value::Text(uuid) => Seen::Text(uuid.into()),
                Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => Seen::Null,
            },
            Self::Number => number_in_text(&text),
            Self::Boolean => match text.as_ref() {
                "true" => Seen::Integer(1),
                "false" => Seen::Integer(0),
                _ => Seen::Null,
            },
        }
    }
}

/// Integers beyond SQLite's are none: as doubles, several of them would be one.
fn of_number(number: &serde_json::Number) -> Seen<'static> {
    match (number.as_i64(), number.as_f64()) {
        (Some(n), _) => Seen::Integer(n),
        (None, Some(x)) if number.is_f64() => Seen::Real(x),
        (None, _) => Seen::Null,
    }
}

/// Only the one way to write a number: otherwise the users `7` and `07` would be the same to an
/// integer column.
fn number_in_text(text: &str) -> Seen<'static> {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) if n.to_string() == text => Seen::Integer(n),
        (_, Ok(x)) if x.is_finite() && x.fract() != 0.0 && x.to_string() == text => Seen::Real(x),
        _ => Seen::Null,
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    Field(Place, Field),
    User(UserTerm),
    Literal(Value),
}
