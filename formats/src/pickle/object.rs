//! What a pickle was found to hold.

use std::borrow::Cow;

use super::Checked;
use super::numpy::{Array, Dtype, Global};

/// The place of an object in its pickle. Objects refer to each other by place, so that shared and
/// even circular ones need no care, and dropping a deep nest does not recurse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(super) usize);

#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Python 3's `bytes`, and the `str` of Python 2.
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Dtype(Dtype),
    Array(Array),
}

impl Object<'_> {
    /// Name of the kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool(_) => "a bool",
            Object::Integer(_) => "an integer",
            Object::Float(_) => "a float",
            Object::Text(_) => "a string",
            Object::Bytes(_) => "bytes",
            Object::List(_) => "a list",
            Object::Tuple(_) => "a tuple",
            Object::Dict(_) => "a dict",
            Object::Global(_) => "a function or class",
            Object::Dtype(_) => "a dtype",
            Object::Array(_) => "an array",
        }
    }

    /// The bytes of a string of either kind.
    pub(super) fn as_str_bytes(&self) -> Option<&[u8]> {
        match self {
            Object::Text(text) => Some(text.as_bytes()),
            Object::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// All objects of a pickle, and the one that was pickled.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(super) objects: Vec<Object<'a>>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The object that was pickled.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0]
    }

    /// The value under `key`, which may have been a `str` of either Python.
    pub(crate) fn entry(&self, dict: Id, key: &str) -> Checked<Id> {
        self.entry_if_any(dict, key)?.ok_or_else(|| {
            let mut known = String::new();
            if let Object::Dict(pairs) = self.get(dict) {
                let names = pairs
                    .iter()
                    .take(8)
                    .filter_map(|(key, _)| self.get(*key).as_str_bytes());
                known = names
                    .map(|name| format!("`{}`", name.escape_ascii()))
                    .collect::<Vec<_>>()
                    .join(", ");
            }
            format!("no key `{key}`; the keys are {known}")
        })
    }

    /// As [`entry`](Pickle::entry), with `None` for a missing key.
    pub(crate) fn entry_if_any(&self, dict: Id, key: &str) -> Checked<Option<Id>> {
        let Object::Dict(pairs) = self.get(dict) else {
            return Err(format!(
                "{} where a dict is expected",
                self.get(dict).kind()
            ));
        };
        // Of repeated keys the last one counts, as in Python.
        let found = pairs
            .iter()
            .rev()
            .find(|(id, _)| self.get(*id).as_str_bytes() == Some(key.as_bytes()));
        Ok(found.map(|(_, value)| *value))
    }

    /// The elements of a list, a tuple, or an array of objects.
    pub(crate) fn elements(&self, id: Id) -> Checked<&[Id]> {
        match self.get(id) {
            Object::List(elements) | Object::Tuple(elements) => Ok(elements),
            Object::Array(array) if array.dtype.is_object() => {
                match array.data.map(|data| self.get(data)) {
                    Some(Object::List(elements)) => Ok(elements),
                    _ => Err("an array of objects without its list".into()),
                }
            }
            other => Err(format!("{} where a list is expected", other.kind())),
        }
    }

    /// A number.
    pub(crate) fn float(&self, id: Id) -> Checked<f64> {
        match self.get(id) {
            Object::Float(value) => Ok(*value),
            Object::Integer(value) => Ok(*value as f64),
            Object::Array(array) if array.shape.is_empty() => match self.floats(id)?[..] {
                [value] => Ok(value),
                _ => Err("an array where a number is expected".into()),
            },
            other => Err(format!("{} where a number is expected", other.kind())),
        }
    }

    /// A list, tuple or array of numbers.
    pub(crate) fn floats(&self, id: Id) -> Checked<Vec<f64>> {
        match self.get(id) {
            Object::Array(array) if !array.dtype.is_object() => {
                array.floats(self.array_bytes(array)?)
            }
            _ => self
                .elements(id)?
                .iter()
                .map(|&element| self.float(element))
                .collect(),
        }
    }

    /// A list, tuple or array of integers.
    pub(crate) fn integers(&self, id: Id) -> Checked<Vec<i64>> {
        self.floats(id)?
            .into_iter()
            .map(|value| match value as i64 {
                integer if integer as f64 == value && value.abs() < 9e15 => Ok(integer),
                _ => Err(format!("{value} where an integer is expected")),
            })
            .collect()
    }

    /// A list of strings of either kind.
    pub(crate) fn strings(&self, id: Id) -> Checked<Vec<String>> {
        let string = |&element| match self.get(element).as_str_bytes().map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(text.to_owned()),
            Some(Err(_)) => Err("a string that is not UTF-8".into()),
            None => Err(format!(
                "{} where a string is expected",
                self.get(element).kind()
            )),
        };
        self.elements(id)?.iter().map(string).collect()
    }

    /// An array of unsigned bytes with two dimensions: rows, columns, and the elements row by row.
    pub(crate) fn byte_matrix(&self, id: Id) -> Checked<(usize, usize, Cow<'_, [u8]>)> {
        let Object::Array(array) = self.get(id) else {
            return Err(format!(
                "{} where an array is expected",
                self.get(id).kind()
            ));
        };
        array.byte_matrix(self.array_bytes(array)?)
    }

    fn array_bytes(&self, array: &Array) -> Checked<&[u8]> {
        match array.data.map(|data| self.get(data)) {
            Some(Object::Bytes(bytes)) => Ok(bytes),
            _ => Err("an array without its bytes".into()),
        }
    }
}
