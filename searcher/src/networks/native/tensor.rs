//! The memory of CPU tensors as slices: the way between libtorch and the native engine.
#![allow(unsafe_code)]

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// The values of a contiguous f32 tensor on the CPU.
///
/// Nobody may write to the tensor by another handle while they are borrowed: the engine calls
/// nothing of libtorch meanwhile, and a network's step runs in one thread.
pub(super) fn values(tensor: &Tensor) -> Result<&[f32]> {
    check(tensor)?;
    if tensor.numel() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the tensor holds `numel` values of f32 in a row, as has just been checked, and lives
    // for as long as it is borrowed. Of writers see above.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// A new matrix of so many rows that `write` fills; it is handed all its values in a row, zeros.
pub(super) fn matrix(
    rows: usize,
    columns: usize,
    write: impl FnOnce(&mut [f32]),
) -> Result<Tensor> {
    let size = |length: usize| {
        i64::try_from(length)
            .map_err(|_| Error::Invalid(format!("a side of {length} values is too long")))
    };
    let tensor = Tensor::f_zeros([size(rows)?, size(columns)?], (Kind::Float, Device::Cpu))?;
    check(&tensor)?;
    let length = tensor.numel();
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
        let made = matrix(2, 2, |values| values.copy_from_slice(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        assert_eq!(
            made,
            Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([2, 2])
        );
        let row = made.narrow(0, 1, 1);
        assert_eq!(values(&row).unwrap(), [3.0, 4.0]);
        assert_eq!(matrix(3, 0, |_| ()).unwrap().size(), [3, 0]);
    }

    #[test]
    fn other_tensors_are_refused() {
        let square = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        assert!(values(&square.transpose(0, 1)).is_err());
        assert!(values(&square.to_kind(Kind::Double)).is_err());
        assert_eq!(values(&square).unwrap().len(), 6);
    }
}
