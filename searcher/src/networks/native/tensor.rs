//! The memory of CPU tensors as slices: the way between libtorch and the native engine.
#![allow(unsafe_code)]

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Calls `read` with the values of a contiguous f32 tensor on the CPU.
pub(super) fn with_values<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    check(tensor)?;
    if tensor.numel() == 0 {
        return Ok(read(&[]));
    }
    // SAFETY: the tensor holds `numel` values of f32 in a row, as has just been checked, and lives
    // for as long as it is borrowed, which is longer than the slice. Nobody writes meanwhile: the
    // engine calls nothing of libtorch in `read`, and a network's step runs in one thread.
    Ok(read(unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel())
    }))
}

/// A new vector of `length` values that `write` fills.
pub(super) fn vector(length: usize, write: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let size = i64::try_from(length)
        .map_err(|_| Error::Invalid(format!("a vector of {length} values is too long")))?;
    let tensor = Tensor::f_zeros([size], (Kind::Float, Device::Cpu))?;
    check(&tensor)?;
    if length > 0 {
        // SAFETY: a fresh tensor of `length` values of f32 in a row that nobody else has.
        write(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), length) });
    }
    Ok(tensor)
}

fn check(tensor: &Tensor) -> Result<()> {
    let sound =
        tensor.device() == Device::Cpu && tensor.f_kind()? == Kind::Float && tensor.is_contiguous();
    if sound {
        return Ok(());
    }
    Err(Error::Invalid(
        "the native engine takes contiguous f32 tensors on the CPU".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cross_in_both_directions() {
        let made = vector(3, |values| values.copy_from_slice(&[1.0, 2.0, 3.0])).unwrap();
        assert_eq!(made, Tensor::from_slice(&[1.0f32, 2.0, 3.0]));
        let read = with_values(&made.narrow(0, 1, 2), <[f32]>::to_vec).unwrap();
        assert_eq!(read, [2.0, 3.0]);
        assert_eq!(vector(0, |_| ()).unwrap().numel(), 0);
    }

    #[test]
    fn other_tensors_are_refused() {
        let square = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        assert!(with_values(&square.transpose(0, 1), |_| ()).is_err());
        assert!(with_values(&square.to_kind(Kind::Double), |_| ()).is_err());
        assert!(with_values(&square, <[f32]>::len).is_ok());
    }
}
