//! What can go wrong between a stored sample and its augmented pixels.

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pixel buffer does not hold exactly `width * height` RGB pixels.
    #[error(
        "an RGB image of {width}x{height} pixels needs {expected} bytes, got {found}: \
         give height x width x 3 bytes, row by row"
    )]
    PixelBytes {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// `width * height * 3`.
        expected: u128,
        /// Bytes given.
        found: usize,
    },

    /// A snapshot belongs to another search space.
    #[error(
        "search space `{space}` has {expected} operations, the snapshot {found} probabilities: \
         give a snapshot of that search space"
    )]
    OperationCount {
        /// Name of the search space.
        space: String,
        /// Operations of the search space.
        expected: usize,
        /// Probabilities of the snapshot.
        found: usize,
    },

    /// A total probability is not a probability.
    #[error("total probability {found}: expected a number from 0 to 1")]
    Probability {
        /// The value given.
        found: f64,
    },

    /// A training run has no epoch.
    #[error("0 epochs: a training run has at least 1")]
    NoEpochs,
}
