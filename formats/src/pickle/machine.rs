//! The stack machine.

use std::borrow::Cow;
use std::collections::HashMap;

use super::numpy::{Array, Dtype, Global};
use super::object::{Id, Object, Pickle};
use super::{Checked, MAX_BYTES, MAX_OPERATIONS};

/// Reads the pickle at the start of `bytes`; what follows it is left alone, as Python does.
///
/// # Errors
/// Says at which byte and what: a name that is not on the list, an instruction that is not understood, bytes that
/// end too early, or sizes beyond the limits.
pub(crate) fn read(bytes: &[u8]) -> Checked<Pickle<'_>> {
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "a pickle of {} bytes; at most {MAX_BYTES} are read",
            bytes.len()
        ));
    }
    let mut machine = Machine {
        bytes,
        at: 0,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        // What one string is turned into is shorter than the string, so a whole pickle needs no more than its length;
        // more means that the same string is turned again and again.
        budget: bytes.len().saturating_mul(2),
    };
    for _ in 0..MAX_OPERATIONS {
        let start = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Pickle {
                    objects: machine.objects,
                    root,
                });
            }
            Err(reason) => return Err(format!("pickle, byte {start}: {reason}")),
        }
    }
    Err(format!(
        "a pickle of more than {MAX_OPERATIONS} instructions"
    ))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Bytes that may still be allocated for converted strings.
    budget: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; the result once the last one is reached.
    fn step(&mut self) -> Checked<Option<Id>> {
        let code = self.take(1)?[0];
        match code {
            // PROTO, FRAME: nothing depends on either.
            0x80 => match self.take(1)?[0] {
                0..=5 => {}
                protocol => return Err(format!("protocol {protocol}; 0 to 5 are read")),
            },
            0x95 => drop(self.take(8)?),
            // STOP
            b'.' => {
                return match self.stack[..] {
                    [root] if self.marks.is_empty() => Ok(Some(root)),
                    _ => Err(format!(
                        "it ends with {} objects on the stack; expected one",
                        self.stack.len()
                    )),
                };
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // Constants and numbers.
            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'I' => {
                let object = match self.line()? {
                    b"00" => Object::Bool(false),
                    b"01" => Object::Bool(true),
                    digits => Object::Integer(parse(digits)?),
                };
                self.push(object);
            }
            b'L' => {
                let digits = self.line()?;
                let value = parse(digits.strip_suffix(b"L").unwrap_or(digits))?;
                self.push(Object::Integer(value));
            }
            b'J' => {
                let value = self.unsigned(4)? as u32 as i32;
                self.push(Object::Integer(value.into()));
            }
            b'K' => self.push_unsigned(1)?,
            b'M' => self.push_unsigned(2)?,
            0x8A => {
                let length = self.unsigned(1)?;
                self.push_long(length)?;
            }
            0x8B => {
                let length = self.unsigned(4)?;
                self.push_long(length)?;
            }
            b'F' => {
                let value = parse(self.line()?)?;
                self.push(Object::Float(value));
            }
            b'G' => {
                // The one big-endian instruction.
                let bits = self
                    .take(8)?
                    .iter()
                    .fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
                self.push(Object::Float(f64::from_bits(bits)));
            }
            // Strings: of Python 2, unicode, bytes.
            b'S' => {
                let line = self.line()?;
                let unquoted = self.unquote(line)?;
                self.push(Object::Bytes(unquoted));
            }
            b'V' => {
                let line = self.line()?;
                let text = self.raw_unicode(line)?;
                self.push(Object::Text(text));
            }
            b'T' | b'B' => self.push_bytes(4)?,
            b'U' | b'C' => self.push_bytes(1)?,
            0x8E | 0x96 => self.push_bytes(8)?,
            b'X' => self.push_text(4)?,
            0x8C => self.push_text(1)?,
            0x8D => self.push_text(8)?,
            // Containers.
            b']' => self.push(Object::List(Vec::new())),
            b')' => self.push(Object::Tuple(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b'l' => {
                let elements = self.pop_to_mark()?;
                self.push(Object::List(elements));
            }
            b't' => {
                let elements = self.pop_to_mark()?;
                self.push(Object::Tuple(elements));
            }
            0x85..=0x87 => {
                let elements = self.pop_many(usize::from(code) - 0x84)?;
                self.push(Object::Tuple(elements));
            }
            b'd' => {
                let elements = self.pop_to_mark()?;
                self.push(Object::Dict(pairs(&elements)?));
            }
            b'a' => {
                let elements = self.pop_many(1)?;
                self.extend_list(elements)?;
            }
            b'e' => {
                let elements = self.pop_to_mark()?;
                self.extend_list(elements)?;
            }
            b's' => {
                let elements = self.pop_many(2)?;
                self.extend_dict(&elements)?;
            }
            b'u' => {
                let elements = self.pop_to_mark()?;
                self.extend_dict(&elements)?;
            }
            // The memo.
            b'p' => {
                let place = parse(self.line()?)?;
                self.memoize(place)?;
            }
            b'q' => {
                let place = self.unsigned(1)?;
                self.memoize(place)?;
            }
            b'r' => {
                let place = self.unsigned(4)?;
                self.memoize(place)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'g' => {
                let place = parse(self.line()?)?;
                self.recall(place)?;
            }
            b'h' => {
                let place = self.unsigned(1)?;
                self.recall(place)?;
            }
            b'j' => {
                let place = self.unsigned(4)?;
                self.recall(place)?;
            }
            // Names, and what is done with them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global(Global::named(module, name)?));
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let names = (
                    self.objects[names[0].0].as_str_bytes(),
                    self.objects[names[1].0].as_str_bytes(),
                );
                let (Some(module), Some(name)) = names else {
                    return Err("a name that is no string".into());
                };
                let global = Global::named(module, name)?;
                self.push(Object::Global(global));
            }
            // INST names what it calls as well: say which.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Global::named(module, name)?;
                return Err("an instance of an old-style class".into());
            }
            b'R' => {
                let call = self.pop_many(2)?;
                let object = self.reduce(call[0], call[1])?;
                self.push(object);
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                self.build(target, state)?;
            }
            other => {
                return Err(format!(
                    "instruction 0x{other:02x} ('{}'), which neither plain data nor numpy arrays need",
                    other.escape_ascii()
                ));
            }
        }
        Ok(None)
    }

    /// Calls a function, which means: does here what it would do.
    fn reduce(&mut self, function: Id, arguments: Id) -> Checked<Object<'a>> {
        let Object::Global(global) = self.objects[function.0] else {
            return Err(format!("a call of {}", self.objects[function.0].kind()));
        };
        let Object::Tuple(arguments) = &self.objects[arguments.0] else {
            return Err("a call without a tuple of arguments".into());
        };
        let objects: Vec<&Object<'a>> = arguments.iter().map(|id| &self.objects[id.0]).collect();
        match (global, &objects[..]) {
            (Global::Encode, [Object::Text(text), encoding])
                if matches!(encoding.as_str_bytes(), Some(b"latin1" | b"latin-1")) =>
            {
                let encoded: Option<Vec<u8>> = text
                    .chars()
                    .map(|letter| u8::try_from(letter).ok())
                    .collect();
                let encoded = encoded.ok_or("a letter beyond latin1 in bytes spelled as latin1")?;
                self.spend(encoded.len())?;
                Ok(Object::Bytes(Cow::Owned(encoded)))
            }
            (Global::Reconstruct, [Object::Global(Global::Ndarray), ..]) => {
                Ok(Object::Array(Array::unfilled()))
            }
            (Global::Dtype, [code, ..]) => Ok(Object::Dtype(Dtype::parse(
                code.as_str_bytes().ok_or("a dtype that is no string")?,
            )?)),
            (Global::Scalar, [Object::Dtype(dtype), Object::Bytes(bytes)]) => {
                Ok(Object::Float(dtype.number(bytes)?))
            }
            (Global::FromBuffer, [data, Object::Dtype(dtype), shape, order]) => {
                let array = Array {
                    shape: self.shape(shape)?,
                    dtype: *dtype,
                    fortran: order.as_str_bytes() == Some(b"F"),
                    data: Some(arguments[0]),
                };
                array.check(data)?;
                Ok(Object::Array(array))
            }
            (global, arguments) => {
                let kinds: Vec<&str> = arguments.iter().map(|argument| argument.kind()).collect();
                Err(format!(
                    "{global:?} with arguments it does not take: {}",
                    kinds.join(", ")
                ))
            }
        }
    }

    /// Gives an array or a dtype the state that follows it.
    fn build(&mut self, target: Id, state: Id) -> Checked<()> {
        let Object::Tuple(state) = &self.objects[state.0] else {
            return Err("a state that is no tuple".into());
        };
        let objects: Vec<&Object<'a>> = state.iter().map(|id| &self.objects[id.0]).collect();
        let built = match (&self.objects[target.0], &objects[..]) {
            // Version, shape, type, column order, elements.
            (
                Object::Array(_),
                [
                    Object::Integer(_),
                    shape,
                    Object::Dtype(dtype),
                    Object::Bool(fortran),
                    data,
                ],
            ) => {
                let array = Array {
                    shape: self.shape(shape)?,
                    dtype: *dtype,
                    fortran: *fortran,
                    data: Some(state[4]),
                };
                array.check(data)?;
                Object::Array(array)
            }
            (Object::Dtype(dtype), state) => {
                let mut dtype = *dtype;
                dtype.set_state(state)?;
                Object::Dtype(dtype)
            }
            (target, _) => return Err(format!("a state that {} does not take", target.kind())),
        };
        self.objects[target.0] = built;
        Ok(())
    }

    fn shape(&self, shape: &Object<'a>) -> Checked<Vec<usize>> {
        let Object::Tuple(sides) = shape else {
            return Err("a shape that is no tuple".into());
        };
        let side = |id: &Id| match self.objects[id.0] {
            Object::Integer(side) => {
                usize::try_from(side).map_err(|_| format!("a shape with the side {side}"))
            }
            _ => Err("a shape with a side that is no integer".into()),
        };
        // numpy has at most 64 dimensions.
        if sides.len() > 64 {
            Err("a shape of more than 64 sides".into())
        } else {
            sides.iter().map(side).collect()
        }
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Id(self.objects.len()));
        self.objects.push(object);
    }

    fn top(&self) -> Checked<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..]
            .last()
            .copied()
            .ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Checked<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Checked<Vec<Id>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() - floor < count {
            return Err("the stack is empty".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Checked<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn extend_list(&mut self, mut elements: Vec<Id>) -> Checked<()> {
        let target = self.top()?;
        match &mut self.objects[target.0] {
            Object::List(list) => {
                list.append(&mut elements);
                Ok(())
            }
            other => Err(format!("elements for {}", other.kind())),
        }
    }

    fn extend_dict(&mut self, elements: &[Id]) -> Checked<()> {
        let target = self.top()?;
        match &mut self.objects[target.0] {
            Object::Dict(dict) => {
                dict.extend(pairs(elements)?);
                Ok(())
            }
            other => Err(format!("entries for {}", other.kind())),
        }
    }

    fn memoize(&mut self, place: u64) -> Checked<()> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Checked<()> {
        let id = *self.memo.get(&place).ok_or_else(|| {
            format!("object {place} was never stored: this is no pickle, or a damaged one")
        })?;
        self.stack.push(id);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| {
            format!(
                "{count} bytes are announced, {} are left: cut short or damaged",
                rest.len()
            )
        })?;
        self.at += count;
        Ok(taken)
    }

    /// The bytes up to the end of the line, which is not part of them.
    fn line(&mut self) -> Checked<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("a line without an end: cut short")?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// A little-endian number of up to 8 bytes.
    fn unsigned(&mut self, count: usize) -> Checked<u64> {
        Ok(self
            .take(count)?
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn sized(&mut self, length_bytes: usize) -> Checked<&'a [u8]> {
        let length = self.unsigned(length_bytes)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn push_unsigned(&mut self, count: usize) -> Checked<()> {
        let value = self.unsigned(count)?;
        self.push(Object::Integer(value as i64));
        Ok(())
    }

    /// A two's complement number of `length` bytes.
    fn push_long(&mut self, length: u64) -> Checked<()> {
        if length > 8 {
            return Err(format!("an integer of {length} bytes; at most 8 are read"));
        }
        let raw = self.unsigned(length as usize)?;
        let unused = 64 - 8 * length as u32;
        let value = if length == 0 {
            0
        } else {
            (raw << unused) as i64 >> unused
        };
        self.push(Object::Integer(value));
        Ok(())
    }

    fn push_bytes(&mut self, length_bytes: usize) -> Checked<()> {
        let bytes = self.sized(length_bytes)?;
        self.push(Object::Bytes(Cow::Borrowed(bytes)));
        Ok(())
    }

    fn push_text(&mut self, length_bytes: usize) -> Checked<()> {
        let text = std::str::from_utf8(self.sized(length_bytes)?)
            .map_err(|_| "a string that is not UTF-8")?;
        self.push(Object::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Checked<()> {
        self.budget = self
            .budget
            .checked_sub(bytes)
            .ok_or("strings are converted to more bytes than the pickle has")?;
        Ok(())
    }

    /// The string that Python 2's `repr` wrote.
    fn unquote(&mut self, line: &[u8]) -> Checked<Cow<'a, [u8]>> {
        let malformed = || "a quoted string that Python did not write".to_string();
        let inner = match line {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return Err(malformed()),
        };
        let mut out = Vec::with_capacity(inner.len());
        let mut rest = inner.iter();
        while let Some(&byte) = rest.next() {
            out.push(match byte {
                b'\\' => match rest.next() {
                    Some(&same @ (b'\\' | b'\'' | b'"')) => same,
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'x') => (hex(&mut rest, 2).ok_or_else(malformed)? & 0xFF) as u8,
                    _ => return Err(malformed()),
                },
                byte => byte,
            });
        }
        self.spend(out.len())?;
        Ok(Cow::Owned(out))
    }

    /// Python's `raw-unicode-escape`: latin1, and `\uXXXX` or `\UXXXXXXXX` for the rest.
    fn raw_unicode(&mut self, line: &[u8]) -> Checked<Cow<'a, str>> {
        let mut out = String::with_capacity(line.len());
        let mut rest = line.iter();
        while let Some(&byte) = rest.next() {
            let mut ahead = rest.clone();
            let digits = match (byte, ahead.next()) {
                (b'\\', Some(b'u')) => 4,
                (b'\\', Some(b'U')) => 8,
                _ => {
                    out.push(char::from(byte));
                    continue;
                }
            };
            let letter = hex(&mut ahead, digits).and_then(char::from_u32);
            out.push(letter.ok_or("an escaped letter that Python did not write")?);
            rest = ahead;
        }
        // A latin1 byte takes up to two in a Rust string.
        self.spend(line.len())?;
        Ok(Cow::Owned(out))
    }
}

fn pairs(elements: &[Id]) -> Checked<Vec<(Id, Id)>> {
    if !elements.len().is_multiple_of(2) {
        return Err("a dict with a key without its value".into());
    }
    Ok(elements
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

fn hex(bytes: &mut std::slice::Iter<'_, u8>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |value, _| {
        Some(value << 4 | char::from(*bytes.next()?).to_digit(16)?)
    })
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Checked<T> {
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| {
        let shown = &digits[..digits.len().min(40)];
        format!("\"{}\" where a number is expected", shown.escape_ascii())
    })
}
