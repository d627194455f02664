//! The recipes known by name: files like a user's own.

use super::Recipe;
use crate::error::{Error, Result};

/// Name and text, the most used first.
const BUILT_IN: [(&str, &str); 6] = [
    ("cifar", include_str!("builtin/cifar.toml")),
    ("cifar-eval", include_str!("builtin/cifar-eval.toml")),
    ("imagenet", include_str!("builtin/imagenet.toml")),
    ("imagenet-eval", include_str!("builtin/imagenet-eval.toml")),
    (
        "imagenet-authors",
        include_str!("builtin/imagenet-authors.toml"),
    ),
    ("imagenet-timm", include_str!("builtin/imagenet-timm.toml")),
];

impl Recipe {
    /// The names [`Recipe::named`] knows.
    pub const NAMES: [&'static str; BUILT_IN.len()] = {
        let mut names = [""; BUILT_IN.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = BUILT_IN[i].0;
            i += 1;
        }
        names
    };

    /// A recipe known by name; each is a file in `runtime/src/recipe/builtin/`.
    ///
    /// - `cifar` (32x32 images): policy, crop out of a black border of 4
    ///   pixels, flip, normalise, cutout of 16 pixels: the order and the
    ///   settings of the authors' CIFAR training.
    /// - `cifar-eval`: normalise only.
    /// - `imagenet` (any size, to 224x224): random resized crop (area 8 to
    ///   100 %, ratio 3/4 to 4/3), flip, policy, normalise. The resize is
    ///   bilinear, torchvision's default, bit-identical with Pillow 13.
    /// - `imagenet-eval`: shorter side to 256, the middle 224x224, normalise.
    /// - `imagenet-authors`: as the DDAS authors trained: `imagenet` with a
    ///   bicubic resize, colour jitter and lighting noise.
    /// - `imagenet-timm`: `imagenet` with a bicubic resize, timm's random
    ///   erasing, MixUp and CutMix.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::from_toml(text, name),
            None => Err(Error::unknown_name("recipe", name, Self::NAMES)),
        }
    }
}
