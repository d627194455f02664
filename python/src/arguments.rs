//! Python keyword arguments as the fields of an operation in a policy file.
//!
//! Going through the file's own form keeps one set of names, checks and messages.

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
    let mut fields = Map::new();
    fields.insert("kind".to_owned(), Value::from(kind));
    for (name, value) in arguments {
        let name: String = name.extract()?;
        if name == "kind" || name == "sign" {
            return Err(PyTypeError::new_err(format!(
                "{kind}: unexpected argument `{name}`"
            )));
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
