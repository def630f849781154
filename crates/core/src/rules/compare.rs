//! Comparisons: both sides are read as one type, or the comparison is refused (spec RU5).

use super::{
    cond::{Comparison, Cond},
    term::{Field, Place, Seen, Shape, Term, UserSource, UserTerm},
};
use crate::{schema::ColumnType, value::Value};

/// One side of a comparison before it is known what it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Side {
    Field {
        place: Place,
        field: Field,
        ty: ColumnType,
    },
    User {
        source: UserSource,
        cast: Option<Shape>,
    },
    Literal(Literal),
}

/// A literal as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    /// `TRUE` or `FALSE`.
    Boolean(bool),
    /// An integer, a real, a text or a blob.
    Value(Value),
}

/// What is wrong with a comparison, and what to write.
#[derive(Debug)]
pub(super) struct Mismatch(pub(super) &'static str, pub(super) String);

/// Kinds of values that can be equal to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Blob,
    /// Text or number, as the database has it.
    Time,
    Any,
}

impl Kind {
    fn of(ty: ColumnType) -> Self {
        match ty {
            ColumnType::Text | ColumnType::Json | ColumnType::Uuid => Self::Text,
            ColumnType::Integer | ColumnType::Real | ColumnType::Boolean => Self::Number,
            ColumnType::Blob => Self::Blob,
            ColumnType::Timestamp => Self::Time,
            ColumnType::Any => Self::Any,
        }
    }

    fn meets(self, other: Self) -> bool {
        let time = |kind| matches!(kind, Self::Time | Self::Text | Self::Number);
        self == other
            || self == Self::Any
            || other == Self::Any
            || (self == Self::Time && time(other))
            || (other == Self::Time && time(self))
    }
}

const NEVER: &str = "the two sides can never be equal: their types differ";

/// The condition `left op right`.
pub(super) fn compare(op: Comparison, left: Side, right: Side) -> Result<Cond, Mismatch> {
    let (left, right) = match (left, right) {
        (Side::Literal(Literal::Null), _) | (_, Side::Literal(Literal::Null)) => {
            return Err(Mismatch(
                "a comparison with NULL is never true",
                "write `IS NULL` or `IS NOT NULL`".into(),
            ));
        }
        (Side::Literal(left), Side::Literal(right)) => return Ok(folded(op, &left, &right)),
        (Side::Literal(left), right) => {
            return compare(op.mirrored(), right, Side::Literal(left));
        }
        (left @ Side::User { .. }, right @ Side::Field { .. }) => {
            return compare(op.mirrored(), right, left);
        }
        (Side::Field { place, field, ty }, Side::Literal(literal)) => {
            let value = for_field(field, ty, literal)?;
            (Term::Field(place, field), Term::Literal(value))
        }
        (
            Side::Field { place, field, ty },
            Side::Field {
                place: p,
                field: f,
                ty: other,
            },
        ) => {
            if !Kind::of(ty).meets(Kind::of(other)) {
                return Err(Mismatch(NEVER, "compare columns of the same type".into()));
            }
            (Term::Field(place, field), Term::Field(p, f))
        }
        (Side::Field { place, field, ty }, Side::User { source, cast }) => {
            let shape = shape_for(ty, &source, cast)?;
            (
                Term::Field(place, field),
                Term::User(UserTerm { source, shape }),
            )
        }
        (Side::User { source, cast }, Side::Literal(literal)) => {
            let (shape, value) = for_user(&source, cast, literal)?;
            (Term::User(UserTerm { source, shape }), Term::Literal(value))
        }
        (
            Side::User { source, cast },
            Side::User {
                source: other,
                cast: other_cast,
            },
        ) => {
            let shape = cast.or(other_cast).unwrap_or(Shape::Text);
            if [cast, other_cast]
                .into_iter()
                .flatten()
                .any(|cast| cast != shape)
            {
                return Err(Mismatch(NEVER, "cast both sides to the same type".into()));
            }
            (
                Term::User(UserTerm { source, shape }),
                Term::User(UserTerm {
                    source: other,
                    shape,
                }),
            )
        }
    };
    Ok(Cond::Compare { op, left, right })
}

/// The value of a literal as a column of this type has it.
pub(super) fn for_field(field: Field, ty: ColumnType, literal: Literal) -> Result<Value, Mismatch> {
    use ColumnType::{Any, Boolean, Integer};
    let moment = matches!(field, Field::CreatedAt | Field::ModifiedAt);
    let value = match (literal, ty) {
        (Literal::Boolean(yes), Boolean | Integer | Any) => Value::Integer(i64::from(yes)),
        (Literal::Boolean(_), _) => {
            return Err(Mismatch(
                NEVER,
                "compare with a value of the column's type".into(),
            ));
        }
        (Literal::Value(Value::Text(text)), _) if moment => Value::Integer(micros(&text)?),
        (Literal::Value(value @ Value::Integer(0 | 1)), Boolean) => value,
        (Literal::Value(_), Boolean) => {
            return Err(Mismatch(
                NEVER,
                "compare a boolean with TRUE or FALSE".into(),
            ));
        }
        (Literal::Value(value), _) => value,
        (Literal::Null, _) => Value::Null,
    };
    // As it is written: a column would store `5` as text and `'5'` as a number, but the
    // databases do not agree that they are equal.
    let kind = match &value {
        Value::Null => Kind::Any,
        Value::Integer(_) | Value::Real(_) => Kind::Number,
        Value::Text(_) => Kind::Text,
        Value::Blob(_) => Kind::Blob,
    };
    if kind.meets(Kind::of(ty)) {
        return Ok(value.canonical(ty));
    }
    Err(Mismatch(
        NEVER,
        match (Kind::of(ty), value) {
            (Kind::Text, Value::Integer(n)) => format!("write the number as text: `'{n}'`"),
            (Kind::Text, Value::Real(x)) => format!("write the number as text: `'{x}'`"),
            (Kind::Number, Value::Text(text)) if text.parse::<f64>().is_ok() => {
                format!("write the number without quotes: `{text}`")
            }
            _ => "compare with a value of the column's type".into(),
        },
    ))
}

/// What a value of the user is read as beside a column.
pub(super) fn shape_for(
    ty: ColumnType,
    source: &UserSource,
    cast: Option<Shape>,
) -> Result<Shape, Mismatch> {
    let shape = match ty {
        ColumnType::Text | ColumnType::Json | ColumnType::Timestamp => Shape::Text,
        ColumnType::Uuid => Shape::Uuid,
        ColumnType::Integer | ColumnType::Real => Shape::Number,
        ColumnType::Boolean => Shape::Boolean,
        ColumnType::Any => cast.unwrap_or(Shape::Natural),
        ColumnType::Blob => {
            return Err(Mismatch(
                NEVER,
                "keep the user's id in a text or uuid column".into(),
            ));
        }
    };
    let text = |shape| matches!(shape, Shape::Text | Shape::Uuid);
    let agrees = cast.is_none_or(|cast| cast == shape || (text(cast) && text(shape)));
    if !agrees {
        return Err(Mismatch(
            NEVER,
            "leave out the cast: the column's type decides".into(),
        ));
    }
    role_is_text(source, shape)?;
    Ok(shape)
}

fn for_user(
    source: &UserSource,
    cast: Option<Shape>,
    literal: Literal,
) -> Result<(Shape, Value), Mismatch> {
    let (shape, value) = match literal {
        Literal::Boolean(yes) => (Shape::Boolean, Value::Integer(i64::from(yes))),
        Literal::Value(value @ Value::Text(_)) => match cast {
            Some(Shape::Uuid) => (Shape::Uuid, value.canonical(ColumnType::Uuid)),
            _ => (Shape::Text, value),
        },
        Literal::Value(value @ (Value::Integer(_) | Value::Real(_))) => (Shape::Number, value),
        Literal::Value(Value::Blob(_) | Value::Null) | Literal::Null => {
            return Err(Mismatch(
                NEVER,
                "compare with a text, a number, TRUE or FALSE".into(),
            ));
        }
    };
    if cast.is_some_and(|cast| cast != shape) {
        return Err(Mismatch(
            NEVER,
            "write the literal in the type of the cast".into(),
        ));
    }
    role_is_text(source, shape)?;
    Ok((shape, value))
}

fn role_is_text(source: &UserSource, shape: Shape) -> Result<(), Mismatch> {
    if *source == UserSource::Role && shape != Shape::Text {
        return Err(Mismatch(
            NEVER,
            "`auth.role()` is text, such as 'authenticated'".into(),
        ));
    }
    Ok(())
}

fn folded(op: Comparison, left: &Literal, right: &Literal) -> Cond {
    let value = |literal: &Literal| match literal {
        Literal::Null => Value::Null,
        Literal::Boolean(yes) => Value::Integer(i64::from(*yes)),
        Literal::Value(value) => value.clone(),
    };
    let ordering = Seen::from(&value(left)).compare(&Seen::from(&value(right)));
    Cond::Const(ordering.is_some_and(|ordering| op.allows(ordering)))
}

/// Microseconds since 1970 of `2026-01-31` or `2026-01-31T12:00:00Z`.
fn micros(text: &str) -> Result<i64, Mismatch> {
    parse_moment(text).ok_or_else(|| {
        Mismatch(
            "not a moment in UTC",
            "write `'2026-01-31'`, `'2026-01-31T12:00:00Z'` or microseconds since 1970".into(),
        )
    })
}

fn parse_moment(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let number = |text: &str, digits: usize| -> Option<i64> {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next()?, 4)?,
        number(date.next()?, 2)?,
        number(date.next()?, 2)?,
    );
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':');
    let (hour, minute, second) = (
        number(time.next()?, 2)?,
        number(time.next()?, 2)?,
        number(time.next()?, 2)?,
    );
    let in_range = date.next().is_none()
        && time.next().is_none()
        && (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && (1..=6).contains(&fraction.len());
    if !in_range {
        return None;
    }
    let fraction = number(&format!("{fraction:0<6}"), 6)?;
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + fraction)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
