//! Python keyword arguments as the fields of an operation in a policy file.
//!
//! Going through the file's own form keeps one set of names, checks and messages.

use ddas_formats::OperationKind;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyString};
use serde_json::{Map, Number, Value};

/// Reads `kind` and its arguments.
///
/// # Errors
/// `ValueError` or `TypeError` naming the operation or argument that is unknown,
/// missing, of the wrong type or out of range.
pub(crate) fn operation(
    kind: &str,
    arguments: &Bound<'_, PyDict>,
) -> PyResult<ddas_formats::Operation> {
    // An unknown kind is refused below, in the words of the policy file.
    let known = kind.parse::<OperationKind>().ok();
    let mut fields = Map::new();
    fields.insert("kind".to_owned(), Value::from(kind));
    for (name, value) in arguments {
        let name: String = name.extract()?;
        if let Some(known) = known
            && !takes(known).any(|taken| taken == name)
        {
            return Err(unexpected(known, &name));
        }
        let value = json(&value, kind, &name)?;
        fields.insert(name, value);
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let argument = error.path().to_string();
        let reason = error.into_inner();
        PyValueError::new_err(match argument.as_str() {
            "." => format!("{kind}: {reason}"),
            argument => format!("{kind}: {argument}: {reason}"),
        })
    })
}

/// What `kind` takes from Python: nothing is random there, so there is no sign rule.
fn takes(kind: OperationKind) -> impl Iterator<Item = &'static str> {
    let names = kind.argument_names().iter().copied();
    names.filter(|name| *name != "sign")
}

/// The error for an argument that `kind` does not have.
pub(crate) fn unexpected(kind: OperationKind, name: &str) -> PyErr {
    let mut taken: Vec<_> = takes(kind).map(|name| format!("`{name}`")).collect();
    if kind == OperationKind::Cutout {
        taken.push("`center`".to_owned());
    }
    let taken = match taken.as_slice() {
        [] => "no arguments".to_owned(),
        taken => taken.join(", "),
    };
    PyTypeError::new_err(format!(
        "{kind}: unexpected argument `{name}`; it takes {taken}"
    ))
}

/// A number from 0 to `largest`.
///
/// # Errors
/// `ValueError` naming the argument for what is out of range, `TypeError` for what is no integer.
pub(crate) fn up_to<T: TryFrom<u64>>(
    value: &Bound<'_, PyAny>,
    name: &str,
    largest: u64,
) -> PyResult<T> {
    let index = value
        .py()
        .import("operator")?
        .call_method1("index", (value,));
    let index = index
        .map_err(|error| PyTypeError::new_err(format!("`{name}`: {}", error.value(value.py()))))?;
    index
        .extract::<u64>()
        .ok()
        .filter(|number| *number <= largest)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            PyValueError::new_err(format!("`{name}` must lie in 0..{largest}, got {index}"))
        })
}

fn json(value: &Bound<'_, PyAny>, kind: &str, name: &str) -> PyResult<Value> {
    if value.is_instance_of::<PyBool>() {
        return Err(wrong_type(value, kind, name));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::from(text.to_str()?));
    }
    if value.is_instance_of::<PyFloat>() {
        return number(value, kind, name);
    }
    // Anything with __index__: int and NumPy's integers.
    if let Ok(integer) = value.extract::<i64>() {
        return Ok(Value::from(integer));
    }
    // Anything with __float__ but not text or a sequence: NumPy's float32, say.
    if value.hasattr("__float__")? && value.len().is_err() {
        return number(value, kind, name);
    }
    if let Ok(items) = value.try_iter() {
        let items = items.map(|item| json(&item?, kind, name));
        return Ok(Value::Array(items.collect::<PyResult<_>>()?));
    }
    Err(wrong_type(value, kind, name))
}

fn number(value: &Bound<'_, PyAny>, kind: &str, name: &str) -> PyResult<Value> {
    let float: f64 = value.extract()?;
    let number = Number::from_f64(float).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{kind}: argument `{name}` must be finite, got {float}"
        ))
    })?;
    Ok(Value::Number(number))
}

fn wrong_type(value: &Bound<'_, PyAny>, kind: &str, name: &str) -> PyErr {
    let got = value.get_type().name().map_or_else(
        |_| "an unnamed type".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    PyTypeError::new_err(format!(
        "{kind}: argument `{name}` must be a number, a text or a list of numbers, got {got}"
    ))
}
