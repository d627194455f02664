//! Reading pickles without executing them.
//!
//! A pickle is a program for a stack machine that may name any Python function and call it. This machine knows the
//! instructions that plain data and numpy arrays need (protocols 0 to 5) and, in place of Python's import, a list of
//! a few names which it understands itself: any other name ends the reading with an error that names it.
//! Nothing recurses, so nesting costs no stack, and the number of instructions and bytes is bounded.
//!
//! The instructions are described in Python's `Lib/pickletools.py`, what numpy writes in
//! `numpy/_core/src/multiarray/{methods,descriptor}.c` (`array_reduce`, `arraydescr_reduce`).

#[cfg(test)]
mod fixtures;
mod machine;
mod numpy;
mod object;
#[cfg(test)]
mod tests;

pub(crate) use self::machine::read;
pub(crate) use self::object::{Id, Pickle};

/// Largest pickle that is read: CIFAR-100's training file has 155 MB.
pub(crate) const MAX_BYTES: usize = 256 << 20;
/// Most instructions that are followed: CIFAR-100's training file has about 300,000.
const MAX_OPERATIONS: usize = 2_000_000;

/// Why a pickle was refused.
pub(crate) type Refused = String;
type Checked<T> = Result<T, Refused>;
