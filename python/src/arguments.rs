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

/// What an argument has to be; the policy file's own checks come after.
#[derive(Clone, Copy)]
enum Expected {
    Number,
    WholeNumber,
    Colour,
    Word,
}

impl Expected {
    fn of(argument: &str) -> Expected {
        match argument {
            "bits" | "add" => Expected::WholeNumber,
            "fill" => Expected::Colour,
            "interpolation" | "rounding" | "scope" | "shape" => Expected::Word,
            _ => Expected::Number,
        }
    }

    fn described(self) -> &'static str {
        match self {
            Expected::Number => "a number",
            Expected::WholeNumber => "a whole number",
            Expected::Colour => "three whole numbers from 0 to 255",
            Expected::Word => "a text",
        }
    }
}

/// `value` as the JSON of a policy file.
fn json(value: &Bound<'_, PyAny>, kind: &str, name: &str) -> PyResult<Value> {
    let expected = Expected::of(name);
    let found = match expected {
        Expected::Number => match number(value) {
            Some(float) if !float.is_finite() => {
                return Err(PyValueError::new_err(format!(
                    "{kind}: argument `{name}` must be finite, got {float}"
                )));
            }
            Some(float) => Number::from_f64(float).map(Value::Number),
            None => None,
        },
        Expected::WholeNumber => whole_number(value).map(Value::from),
        Expected::Colour => colour(value)?,
        Expected::Word => value.extract::<String>().ok().map(Value::from),
    };
    found.ok_or_else(|| {
        let got = match value.get_type().name() {
            // The value says more than its type where it has the right one.
            _ if matches!(expected, Expected::Colour | Expected::WholeNumber)
                && value.len().unwrap_or(0) < 100 =>
            {
                value.repr().map(|text| text.to_string())
            }
            name => name.map(|name| name.to_string()),
        };
        let got = got.unwrap_or_else(|_| "something else".to_owned());
        PyTypeError::new_err(format!(
            "{kind}: argument `{name}` must be {}, got {got}",
            expected.described()
        ))
    })
}

/// int, float, and what has `__float__` (NumPy's numbers, a tensor of one element), but for truth
/// values and text.
fn number(value: &Bound<'_, PyAny>) -> Option<f64> {
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyString>() {
        return None;
    }
    // Sequences of one element have `__float__` too.
    let single = value.is_instance_of::<PyFloat>() || value.len().is_err();
    single.then(|| value.extract().ok()).flatten()
}

/// int and what has `__index__`, but for truth values.
fn whole_number(value: &Bound<'_, PyAny>) -> Option<i64> {
    let is_truth = value.is_instance_of::<PyBool>();
    (!is_truth).then(|| value.extract().ok()).flatten()
}

/// Anything that yields three bytes.
fn colour(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    if value.is_instance_of::<PyString>() {
        return Ok(None);
    }
    let Ok(items) = value.try_iter() else {
        return Ok(None);
    };
    let bytes: Option<Vec<u8>> = items
        .map(|item| Ok(whole_number(&item?).and_then(|number| u8::try_from(number).ok())))
        .collect::<PyResult<_>>()?;
    Ok(bytes.filter(|bytes| bytes.len() == 3).map(Value::from))
}
