//! What can go wrong between a stored sample and its augmented pixels.

use ddas_formats::{MAX_PIXELS, MAX_SIDE};

use crate::resize::Rect;

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

    /// A sample asks for more than the decoder's limits allow.
    #[error(
        "an encoded image of {width}x{height} pixels is outside the decoder's limits: \
         {what} {found}, limit {limit}"
    )]
    DecodeLimit {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The quantity that is out of bounds.
        what: &'static str,
        /// Its bound.
        limit: u64,
        /// Its value.
        found: u64,
    },

    /// A payload holds an image of another size than its record says.
    #[error(
        "the record says {}x{} pixels, the encoded image has {}x{}: \
         the dataset is damaged or was packed wrongly, run verify and pack it again",
        expected.0, expected.1, found.0, found.1
    )]
    DecodedSize {
        /// Width and height of the record.
        expected: (u32, u32),
        /// Width and height of the payload.
        found: (u32, u32),
    },

    /// An image cannot be stored as a JPEG.
    #[error("cannot encode the image: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },

    /// A payload is not a whole, undamaged image.
    #[error("cannot decode the {format} image: {reason}")]
    Decode {
        /// "JPEG", "PNG" or "raw".
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },

    /// A crop is empty or reaches beyond its image.
    #[error(
        "cannot crop {}x{} pixels at ({}, {}) out of an image of {width}x{height}: \
         the crop must hold a pixel and lie within the image",
        crop.width, crop.height, crop.x, crop.y
    )]
    Crop {
        /// What was asked for.
        crop: Rect,
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
    /// An image without pixels was asked for.
    #[error("cannot resize to {width}x{height} pixels: both sides must be at least 1")]
    EmptySize {
        /// Columns asked for.
        width: u32,
        /// Rows asked for.
        height: u32,
    },
    /// A name that nothing carries.
    #[error("unknown {what} `{name}`; known are {}", known.join(", "))]
    UnknownName {
        /// What kind of thing was named.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },

    /// A recipe cannot be carried out.
    #[error("recipe `{recipe}`, step {step}: {reason}")]
    Recipe {
        /// Its name.
        recipe: String,
        /// The step concerned, from 0.
        step: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// The text of a recipe is not one.
    #[error("recipe `{recipe}`, line {line}: {reason}")]
    RecipeText {
        /// Its name, or that of its file.
        recipe: String,
        /// The line concerned, from 1.
        line: usize,
        /// The field, what is wrong, and what was expected.
        reason: String,
    },

    /// A policy was given to a recipe without a place for it.
    #[error("recipe `{recipe}` has no `policy` step: leave the policy out or add the step")]
    NoPolicyStep {
        /// Name of the recipe.
        recipe: String,
    },

    /// MixUp or CutMix cannot be carried out as asked for.
    #[error("mix: {field}: {reason}")]
    Mix {
        /// The field concerned, as recipes write it.
        field: &'static str,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// A recipe that does not resize met a sample of another size.
    #[error(
        "recipe `{recipe}` takes images of {expected}x{expected} pixels, this one has {}x{}: \
         use a recipe that resizes, or pack images of that size",
        found.0, found.1
    )]
    SampleSize {
        /// Name of the recipe.
        recipe: String,
        /// Side the recipe takes.
        expected: u32,
        /// Width and height of the sample.
        found: (u32, u32),
    },

    /// A resize by the shorter side would make too large an image.
    #[error(
        "resizing an image of {}x{} pixels to {}x{} is more than the {MAX_SIDE} pixels on a side \
         and {MAX_PIXELS} in all that are allowed: such narrow images need another recipe",
        from.0, from.1, to.0, to.1
    )]
    ResizedSize {
        /// Width and height of the image.
        from: (u32, u32),
        /// Width and height it would get.
        to: (u32, u32),
    },

    /// The place for a sample has the wrong size.
    #[error("a sample takes {expected} bytes, the place given for it has {found}")]
    OutputBytes {
        /// Bytes of a sample.
        expected: usize,
        /// Bytes of the place.
        found: usize,
    },

    /// A sample could not be processed.
    #[error("sample {index}: {cause}")]
    Sample {
        /// Its number in the dataset.
        index: u64,
        /// Why.
        cause: Box<Error>,
    },
}

impl Error {
    /// An [`Error::UnknownName`].
    pub(crate) fn unknown_name<const N: usize>(
        what: &'static str,
        name: &str,
        known: [&'static str; N],
    ) -> Self {
        Error::UnknownName {
            what,
            name: name.to_owned(),
            known: known.to_vec(),
        }
    }
}
