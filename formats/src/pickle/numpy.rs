//! The few names a pickle may refer to, and what numpy's mean.

use std::borrow::Cow;

use super::Checked;
use super::object::{Id, Object};

/// A name that is understood. Nothing else can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `numpy.core.multiarray._reconstruct`: an array to be filled by its state.
    Reconstruct,
    /// `numpy.core.multiarray.scalar`: one element as a number.
    Scalar,
    /// `numpy._core.numeric._frombuffer`: an array over bytes (protocol 5).
    FromBuffer,
    /// `numpy.ndarray`, as an argument of `_reconstruct`.
    Ndarray,
    /// `numpy.dtype`.
    Dtype,
    /// `_codecs.encode`: how protocols below 3 spell bytes.
    Encode,
}

impl Global {
    /// # Errors
    /// Names the module and the attribute when they are not on the list.
    pub(super) fn named(module: &[u8], name: &[u8]) -> Checked<Global> {
        match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Ok(Global::Reconstruct)
            }
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"scalar") => Ok(Global::Scalar),
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => {
                Ok(Global::FromBuffer)
            }
            (b"numpy", b"ndarray") => Ok(Global::Ndarray),
            (b"numpy", b"dtype") => Ok(Global::Dtype),
            (b"_codecs", b"encode") => Ok(Global::Encode),
            _ => Err(format!(
                "it refers to `{}.{}`; only numpy arrays and plain data are read, and nothing was executed",
                module.escape_ascii(),
                name.escape_ascii()
            )),
        }
    }
}

/// Type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    /// numpy's letter: `b` bool, `i` signed, `u` unsigned, `f` float, `O` object.
    kind: u8,
    /// Bytes of an element.
    size: usize,
    big_endian: bool,
}

impl Dtype {
    /// From the first argument of `numpy.dtype`, such as `f4`.
    pub(super) fn parse(code: &[u8]) -> Checked<Dtype> {
        let unknown = || {
            format!(
                "elements of the type `{}`; integers, floats, bools and objects are read",
                code.escape_ascii()
            )
        };
        let (&kind, size) = code.split_first().ok_or_else(unknown)?;
        let size = match (kind, size) {
            (b'b' | b'i' | b'u', b"1") => 1,
            (b'i' | b'u' | b'f', b"2") => 2,
            (b'i' | b'u' | b'f', b"4") => 4,
            (b'i' | b'u' | b'f', b"8") | (b'O', b"" | b"8") => 8,
            _ => return Err(unknown()),
        };
        if (kind, size) == (b'f', 2) {
            return Err(unknown());
        }
        Ok(Dtype {
            kind,
            size,
            big_endian: false,
        })
    }

    /// Takes the state numpy pickles for a dtype: version, byte order, then sub-array, names and fields, ..
    pub(super) fn set_state(&mut self, state: &[&Object<'_>]) -> Checked<()> {
        let [_, order, Object::None, Object::None, Object::None, ..] = state else {
            return Err("elements with fields or sub-arrays; plain numbers are read".into());
        };
        self.big_endian = match order.as_str_bytes() {
            Some(b"<" | b"|") => false,
            // "=": the byte order of the machine that wrote it, which numpy itself reads as its own.
            Some(b"=") => cfg!(target_endian = "big"),
            Some(b">") => true,
            _ => return Err("a dtype without a byte order".into()),
        };
        Ok(())
    }

    pub(super) fn is_object(&self) -> bool {
        self.kind == b'O'
    }

    /// One element as a number.
    pub(super) fn number(&self, bytes: &[u8]) -> Checked<f64> {
        let mut raw = [0; 8];
        if bytes.len() != self.size || self.is_object() {
            return Err(format!(
                "an element of {} bytes where {} are expected",
                bytes.len(),
                self.size
            ));
        }
        for (to, from) in raw.iter_mut().zip(0..self.size) {
            *to = bytes[if self.big_endian {
                self.size - 1 - from
            } else {
                from
            }];
        }
        let bits = u64::from_le_bytes(raw);
        let unused = 64 - 8 * self.size as u32;
        Ok(match self.kind {
            b'f' if self.size == 4 => f64::from(f32::from_bits(bits as u32)),
            b'f' => f64::from_bits(bits),
            b'i' => ((bits << unused) as i64 >> unused) as f64,
            _ => bits as f64,
        })
    }
}

/// An array; without data until its state has been read.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) fortran: bool,
    /// Its bytes, or the list of its objects.
    pub(super) data: Option<Id>,
}

impl Array {
    /// An array before its state.
    pub(super) fn unfilled() -> Array {
        Array {
            shape: vec![0],
            dtype: Dtype {
                kind: b'u',
                size: 1,
                big_endian: false,
            },
            fortran: false,
            data: None,
        }
    }

    /// Whether `data` is of the length that shape and type ask for.
    pub(super) fn check(&self, data: &Object<'_>) -> Checked<()> {
        let elements = self
            .shape
            .iter()
            .try_fold(1usize, |product, &side| product.checked_mul(side));
        let (expected, found) = match data {
            Object::List(list) if self.dtype.is_object() => (elements, list.len()),
            Object::Bytes(bytes) if !self.dtype.is_object() => (
                elements.and_then(|elements| elements.checked_mul(self.dtype.size)),
                bytes.len(),
            ),
            other => return Err(format!("an array over {}", other.kind())),
        };
        if expected != Some(found) {
            let unit = if self.dtype.is_object() {
                "objects"
            } else {
                "bytes"
            };
            return Err(format!(
                "an array of shape {:?} over {found} {unit}",
                self.shape
            ));
        }
        Ok(())
    }

    /// The elements of an array of at most one dimension.
    pub(super) fn floats(&self, bytes: &[u8]) -> Checked<Vec<f64>> {
        if self.shape.len() > 1 {
            return Err(format!(
                "an array of shape {:?} where a list of numbers is expected",
                self.shape
            ));
        }
        bytes
            .chunks(self.dtype.size)
            .map(|element| self.dtype.number(element))
            .collect()
    }

    pub(super) fn byte_matrix<'a>(
        &self,
        bytes: &'a [u8],
    ) -> Checked<(usize, usize, Cow<'a, [u8]>)> {
        let [rows, columns] = self.shape[..] else {
            return Err(format!(
                "an array of shape {:?} where two dimensions are expected",
                self.shape
            ));
        };
        if (self.dtype.kind, self.dtype.size) != (b'u', 1) {
            return Err("an array of another type where unsigned bytes are expected".into());
        }
        if !self.fortran {
            return Ok((rows, columns, Cow::Borrowed(bytes)));
        }
        let transposed = (0..bytes.len())
            .map(|at| bytes[at % columns * rows + at / columns])
            .collect();
        Ok((rows, columns, Cow::Owned(transposed)))
    }
}
