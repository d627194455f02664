//! The fields of one TOML table, read by name and type.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong in a text, and where.
#[derive(Debug)]
pub(super) struct Problem {
    /// The byte of the text it is about.
    pub(super) offset: usize,
    /// Path of the field, what is wrong, what was expected.
    pub(super) reason: String,
}

impl Problem {
    pub(super) fn new(offset: usize, reason: String) -> Self {
        Self { offset, reason }
    }

    /// A problem of `field` (or, when empty, of all) of the table at `path`.
    pub(super) fn at(path: &str, field: &str, offset: usize, reason: String) -> Self {
        let place = match (path, field) {
            ("", "") => return Self::new(offset, reason),
            ("", field) => field.to_owned(),
            (path, "") => path.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        Self::new(offset, format!("{place}: {reason}"))
    }
}

type Read<T> = Result<T, Problem>;

/// A table whose fields are all known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: &'a str,
    table: &'a DeTable<'a>,
    offset: usize,
}

impl<'a> Fields<'a> {
    /// The table at `path`, which begins at byte `offset`; refuses a field
    /// that is not among `known`.
    pub(super) fn new(
        path: &'a str,
        table: &'a DeTable<'a>,
        offset: usize,
        known: &[&'static str],
    ) -> Read<Self> {
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let reason = match closest(name, known.iter().copied()) {
                    suggestion if !suggestion.is_empty() => format!("unknown field{suggestion}"),
                    _ => format!("unknown field; known are {}", known.join(", ")),
                };
                return Err(Problem::at(path, name, key.span().start, reason));
            }
        }
        Ok(Self {
            path,
            table,
            offset,
        })
    }

    fn get(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(name)
    }

    /// A problem of field `name`, or of the table when it is empty or absent.
    pub(super) fn problem(&self, name: &str, reason: &str) -> Problem {
        let offset = self
            .get(name)
            .map_or(self.offset, |value| value.span().start);
        Problem::at(self.path, name, offset, reason.to_owned())
    }

    fn expected<T>(&self, name: &str, what: &str) -> Read<T> {
        let found = self
            .get(name)
            .map_or("nothing", |value| value.get_ref().type_str());
        Err(self.problem(name, &format!("expected {what}, found {found}")))
    }

    /// Refuses the absence of a field.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| self.problem(name, "missing"))
    }

    /// A text of 1 to `most` bytes without control characters.
    pub(super) fn text(&self, name: &str, most: usize) -> Read<Option<&'a str>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text)
                if (1..=most).contains(&text.len()) && !text.chars().any(char::is_control) =>
            {
                Ok(Some(text))
            }
            Some(_) => Err(self.problem(name, &format!("expected one line of 1 to {most} bytes"))),
            None => self.expected(name, "a text in quotes"),
        }
    }

    /// The position among `names` of the one given.
    pub(super) fn choice(&self, name: &str, names: &[&'static str]) -> Read<Option<usize>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let Some(text) = value.get_ref().as_str() else {
            return self.expected(name, &format!("one of the texts {}", names.join(", ")));
        };
        match names.iter().position(|known| *known == text) {
            Some(position) => Ok(Some(position)),
            None => {
                let suggestion = closest(text, names.iter().copied());
                let known = names.join(", ");
                let reason = format!("unknown value `{text}`{suggestion}; expected {known}");
                Err(self.problem(name, &reason))
            }
        }
    }

    pub(super) fn flag(&self, name: &str) -> Read<Option<bool>> {
        match self.get(name).map(|value| value.get_ref().as_bool()) {
            None => Ok(None),
            Some(Some(flag)) => Ok(Some(flag)),
            Some(None) => self.expected(name, "true or false"),
        }
    }

    pub(super) fn is_number(&self, name: &str) -> bool {
        let number = |value: &DeValue<'_>| value.is_integer() || value.is_float();
        self.get(name).is_some_and(|value| number(value.get_ref()))
    }

    pub(super) fn is_array(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.get_ref().is_array())
    }

    pub(super) fn number(&self, name: &str) -> Read<Option<f64>> {
        match self.get(name).map(|value| to_number(value.get_ref())) {
            None => Ok(None),
            Some(Some(number)) => Ok(Some(number)),
            Some(None) => self.expected(name, "a number"),
        }
    }

    /// `probability`.
    pub(super) fn chance(&self, otherwise: f64) -> Read<f64> {
        Ok(self.number("probability")?.unwrap_or(otherwise))
    }

    /// A whole number from 0 on.
    pub(super) fn count(&self, name: &str) -> Read<Option<u32>> {
        match self.get(name).map(|value| to_count(value.get_ref())) {
            None => Ok(None),
            Some(Some(count)) => Ok(Some(count)),
            Some(None) => self.expected(name, "a whole number from 0 on"),
        }
    }

    /// A list of exactly `N` numbers.
    pub(super) fn numbers<const N: usize>(&self, name: &str) -> Read<Option<[f64; N]>> {
        self.list(name, to_number, "numbers")
    }

    /// A list of exactly `N` whole numbers.
    pub(super) fn counts<const N: usize>(&self, name: &str) -> Read<Option<[u32; N]>> {
        self.list(name, to_count, "whole numbers from 0 on")
    }

    fn list<T: Copy + Default, const N: usize>(
        &self,
        name: &str,
        to: impl Fn(&DeValue<'_>) -> Option<T>,
        what: &str,
    ) -> Read<Option<[T; N]>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match to_list(value.get_ref(), to) {
            Some(values) => Ok(Some(values)),
            None => self.expected(name, &format!("a list of {N} {what}")),
        }
    }

    /// A list of three lists of three numbers.
    pub(super) fn matrix(&self, name: &str) -> Read<Option<[[f64; 3]; 3]>> {
        self.list(name, |row| to_list(row, to_number), "lists of 3 numbers")
    }

    /// A grey value or a list of red, green and blue, 0 to 255.
    pub(super) fn colour(&self, name: &str) -> Read<Option<[u8; 3]>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let byte = |value: &DeValue<'_>| to_count(value).and_then(|count| u8::try_from(count).ok());
        let value = value.get_ref();
        match byte(value)
            .map(|grey| [grey; 3])
            .or_else(|| to_list(value, byte))
        {
            Some(colour) => Ok(Some(colour)),
            None => self.expected(name, "0 to 255, or a list of three such numbers"),
        }
    }

    /// A table within this one, whose path is `path`.
    pub(super) fn table(
        &self,
        name: &str,
        path: &'a str,
        known: &[&'static str],
    ) -> Read<Option<Fields<'a>>> {
        match self
            .get(name)
            .map(|value| (value, value.get_ref().as_table()))
        {
            None => Ok(None),
            Some((value, Some(table))) => {
                Fields::new(path, table, value.span().start, known).map(Some)
            }
            Some((_, None)) => self.expected(name, &format!("a table with {}", known.join(", "))),
        }
    }

    /// The tables of an array of tables.
    pub(super) fn tables(&self, name: &str) -> Read<Vec<&'a Spanned<DeValue<'a>>>> {
        match self.get(name).map(|value| value.get_ref().as_array()) {
            Some(Some(array)) => Ok(array.iter().collect()),
            Some(None) => self.expected(name, "tables, each under a line [[steps]]"),
            None => Err(self.problem(name, "missing: each step is a table under [[steps]]")),
        }
    }
}

fn to_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        DeValue::Integer(_) => to_integer(value).map(|integer| integer as f64),
        _ => None,
    }
}

fn to_integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

fn to_count(value: &DeValue<'_>) -> Option<u32> {
    u32::try_from(to_integer(value)?).ok()
}

fn to_list<T: Copy + Default, const N: usize>(
    value: &DeValue<'_>,
    to: impl Fn(&DeValue<'_>) -> Option<T>,
) -> Option<[T; N]> {
    let array = value.as_array()?;
    if array.len() != N {
        return None;
    }
    let mut values = [T::default(); N];
    for (place, value) in values.iter_mut().zip(array.iter()) {
        *place = to(value.get_ref())?;
    }
    Some(values)
}

/// ", did you mean `x`?" for a name that is nearly one of `known`; else empty.
pub(super) fn closest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let allowed = 1 + (name.len() + 1) / 4;
    known
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map_or_else(String::new, |(_, known)| {
            format!(", did you mean `{known}`?")
        })
}

/// Levenshtein's distance in bytes, of the first 64.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (a, b) = (&a[..a.len().min(64)], &b[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(byte != other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
