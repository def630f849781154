//! A JSON column as a tree that edits act on.

use std::collections::BTreeSet;

use super::{
    counter::{self, SumError},
    json::{Array, DEPTH_MAX, Document, Json, Object},
    path, set,
};
use crate::{change::PathEdit, value::Value};

/// The document of a column; none for NULL.
#[derive(Debug, Clone)]
pub(crate) struct Tree<'a>(Option<Document<'a>>);

/// Why an edit does not act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// What is there now has another shape: somebody put it there meanwhile.
    Shape,
    /// The edit itself is wrong, whatever is there.
    Malformed(&'static str),
    /// The number would be too large.
    Overflow,
}

impl<'a> Tree<'a> {
    /// The tree of NULL or of a JSON text; `None` for everything else.
    pub(crate) fn parse(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self(None)),
            Value::Text(text) => Document::parse(text).map(|document| Self(Some(document))),
            Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
        }
    }

    pub(crate) fn value(&self) -> Value {
        self.0
            .as_ref()
            .map_or(Value::Null, |document| Value::Text(document.to_string()))
    }

    pub(crate) fn root(&self) -> Option<&Json<'a>> {
        self.0.as_ref().map(|document| &document.root)
    }

    /// The value at `path`, if there is one.
    pub(crate) fn get(&self, path: &str) -> Option<&Json<'a>> {
        let members = members(path).ok()?;
        members
            .iter()
            .try_fold(self.root()?, |json, member| json.as_object()?.get(member))
    }

    /// The outermost place around `path` where a clock says something about `path`.
    ///
    /// A member that an object does not have was not written with that object, so only its own
    /// removal, or that of something around it, can be later than an edit of it. Everything else
    /// was written with what is around it.
    pub(crate) fn told_from<'p>(&self, path: &'p str) -> &'p str {
        let around: Vec<&str> =
            std::iter::successors(Some(path), |path| path::parent(path)).collect();
        let mut place = self.root();
        for inner in around.into_iter().rev().skip(1) {
            let Some(Json::Object(object)) = place else {
                return path::ROOT;
            };
            place = path::last(inner).and_then(|member| object.get(&member));
            if place.is_none() {
                return inner;
            }
        }
        path::ROOT
    }

    /// Lets `edit` take effect at `path`.
    ///
    /// No member and null count as an empty array, as zero, and as an empty object around a
    /// member.
    pub(crate) fn perform(&mut self, path: &str, edit: &'a PathEdit) -> Result<(), Misfit> {
        let members = members(path)?;
        if let PathEdit::Decide {
            base: Some(base), ..
        } = edit
        {
            parsed(base, 0)?;
        }
        match edit {
            PathEdit::Set(text)
            | PathEdit::Decide {
                new: Some(text), ..
            } => self.put(&members, parsed(text, members.len())?, true),
            PathEdit::Remove | PathEdit::Decide { new: None, .. } => {
                self.remove(&members);
                Ok(())
            }
            PathEdit::Add(delta) => {
                if !counter::is_delta(delta) {
                    return Err(Misfit::Malformed("a counter's difference is no number"));
                }
                let total = counter::json_sum(self.get(path), delta)?;
                self.put(&members, total, false)
            }
            PathEdit::Items { add, remove } => {
                self.change_set(&members, add, &set::keys(remove).ok_or(NO_JSON)?)
            }
            PathEdit::Append(list) => {
                let list = items(list, members.len())?;
                let array = self.array(&members)?;
                list.into_iter().for_each(|item| array.push(item));
                Ok(())
            }
        }
    }

    /// Changes the set at `members`: `remove` holds canonical texts.
    pub(crate) fn change_set(
        &mut self,
        members: &[String],
        add: &'a [String],
        remove: &BTreeSet<String>,
    ) -> Result<(), Misfit> {
        let add = items(add, members.len())?;
        set::change(self.array(members)?, add, remove);
        Ok(())
    }

    /// Puts `value` in; `over` lets it take the place of a scalar or array that stands where
    /// an object around it should be.
    fn put(&mut self, members: &[String], value: Json<'a>, over: bool) -> Result<(), Misfit> {
        let Some((member, around)) = members.split_last() else {
            *self.root_mut() = value;
            return Ok(());
        };
        self.object(around, over)?.set(member, value);
        Ok(())
    }

    fn remove(&mut self, members: &[String]) {
        let Some((member, around)) = members.split_last() else {
            return;
        };
        let root = self
            .0
            .as_mut()
            .and_then(|document| document.root.as_object_mut());
        let object = around.iter().try_fold(root, |object, member| {
            Some(object.and_then(|object| object.get_mut(member)?.as_object_mut()))
        });
        if let Some(Some(object)) = object {
            object.remove(member);
        }
    }

    fn array(&mut self, members: &[String]) -> Result<&mut Array<'a>, Misfit> {
        let place = match members.split_last() {
            None => self.root_mut(),
            Some((member, around)) => {
                let object = self.object(around, false)?;
                if object.get(member).is_none() {
                    object.set(member, Json::Array(Array::default()));
                }
                object.get_mut(member).ok_or(Misfit::Shape)?
            }
        };
        if place.is_null() {
            *place = Json::Array(Array::default());
        }
        place.as_array_mut().ok_or(Misfit::Shape)
    }

    fn object(&mut self, members: &[String], over: bool) -> Result<&mut Object<'a>, Misfit> {
        let root = self.root_mut();
        if root.is_null() {
            *root = Json::Object(Object::default());
        }
        let mut object = root.as_object_mut().ok_or(Misfit::Shape)?;
        for member in members {
            let fits = match object.get(member) {
                None => false,
                Some(json) => json.as_object().is_some() || !(over || json.is_null()),
            };
            if !fits {
                object.set(member, Json::Object(Object::default()));
            }
            let inner = object.get_mut(member).and_then(Json::as_object_mut);
            object = inner.ok_or(Misfit::Shape)?;
        }
        Ok(object)
    }

    fn root_mut(&mut self) -> &mut Json<'a> {
        &mut self.0.get_or_insert_with(Document::null).root
    }
}

impl From<SumError> for Misfit {
    fn from(error: SumError) -> Self {
        match error {
            SumError::NoNumber => Self::Shape,
            SumError::Overflow => Self::Overflow,
        }
    }
}

/// The members that `path` names from the outside in; none for the root.
pub(crate) fn members(path: &str) -> Result<Vec<String>, Misfit> {
    if path == path::ROOT {
        return Ok(Vec::new());
    }
    path::split(path).ok_or(Misfit::Malformed("a path is malformed"))
}

pub(crate) const NO_JSON: Misfit = Misfit::Malformed("a value is no JSON, or nested too deep");

/// `text` as JSON that still fits below `above` objects.
fn parsed(text: &str, above: usize) -> Result<Json<'_>, Misfit> {
    let json = Json::parse(text).ok_or(NO_JSON)?;
    if above + json.depth() > DEPTH_MAX {
        return Err(NO_JSON);
    }
    Ok(json)
}

fn items(texts: &[String], above: usize) -> Result<Vec<Json<'_>>, Misfit> {
    texts.iter().map(|text| parsed(text, above + 1)).collect()
}
