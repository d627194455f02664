//! What happens to a sample between decoding and delivery, as data.
//!
//! [`Step`] lists what there is, `check` says what can stand where, `read` and
//! `write` turn recipes from and to TOML, `builtin` holds the known ones.
//! `draw` makes the random choices of one sample and yields [`Action`]s.

mod action;
mod builtin;
mod check;
mod draw;
mod fields;
mod read;
mod step;
mod write;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::mix::Mix;
use crate::output::Normalization;

pub use action::Action;
pub use step::{Border, ColorJitter, Erase, Lighting, RandomErasing, ResizeTo, Step};

/// The steps from a decoded sample to a delivered one.
///
/// ```
/// use ddas_runtime::Recipe;
///
/// let recipe = Recipe::named("cifar")?;
/// assert_eq!(recipe.size(), 32);
/// assert!(Recipe::named("cifer").is_err());
///
/// let text = r#"
///     size = 224
///     [[steps]]
///     kind = "random-resized-crop"
///     scale = [0.35, 1.0]
///     [[steps]]
///     kind = "policy"
///     [[steps]]
///     kind = "normalize"
///     mean = [0.485, 0.456, 0.406]
///     std = [0.229, 0.224, 0.225]
/// "#;
/// let recipe = Recipe::from_toml(text, "mine")?;
/// assert_eq!(recipe.steps().len(), 3);
/// assert_eq!(Recipe::from_toml(&recipe.to_toml(), "mine")?, recipe);
///
/// let error = Recipe::from_toml(&text.replace("scale", "scal"), "mine").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "recipe `mine`, line 5: steps[0].scal: unknown field, did you mean `scale`?",
/// );
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    name: String,
    description: Option<String>,
    size: u32,
    steps: Vec<Step>,
    normalization: Normalization,
    mix: Option<Mix>,
}

impl Recipe {
    /// A recipe of the user's own, delivering `size` x `size` pixels.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the step that is out of place or range. The
    /// order must be: [`Step::RandomResizedCrop`] or [`Step::Resize`] first if
    /// at all; the other steps on pixels in any order; [`Step::Lighting`] if at
    /// all; [`Step::Normalize`]; then [`Step::Cutout`] and
    /// [`Step::RandomErasing`] if at all. Each kind comes at most once, but
    /// for [`Step::RandomFlip`].
    pub fn new(name: impl Into<String>, size: u32, steps: Vec<Step>) -> Result<Self> {
        let name = name.into();
        match check::check(size, &steps) {
            Ok(normalization) => Ok(Self {
                name,
                description: None,
                size,
                steps,
                normalization,
                mix: None,
            }),
            Err(flaw) => {
                let colon = if flaw.field.is_empty() { "" } else { ": " };
                Err(Error::Recipe {
                    recipe: name,
                    step: flaw.step.unwrap_or(0),
                    reason: format!("{}{colon}{}", flaw.field, flaw.reason),
                })
            }
        }
    }

    /// The same recipe for batches that are mixed.
    ///
    /// ```
    /// use ddas_runtime::{Mix, MixUp, Recipe};
    ///
    /// let plain = Recipe::named("imagenet")?;
    /// let mix = Mix { mixup: Some(MixUp { alpha: 0.2 }), ..Mix::default() };
    /// let mixed = plain.clone().with_mix(mix)?;
    /// assert_eq!(mixed.mix(), Some(&mix));
    /// assert_ne!(mixed.digest(), plain.digest());
    /// # Ok::<(), ddas_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Mix::check`].
    pub fn with_mix(self, mix: Mix) -> Result<Self> {
        mix.check()?;
        Ok(Self {
            mix: Some(mix),
            ..self
        })
    }

    /// A recipe from the text of a recipe file (`docs/recipes.md`). `name`
    /// names it where the text does not.
    ///
    /// # Errors
    /// [`Error::RecipeText`] naming the line and the field.
    pub fn from_toml(text: &str, name: &str) -> Result<Self> {
        read::read(text, name)
    }

    /// Its canonical text, every field written out:
    /// `Recipe::from_toml(&recipe.to_toml(), ..)` is the same recipe.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::write(self, true)
    }

    /// Identity of what it does to samples: XXH3-64 of its canonical text
    /// without name and description.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxh3_64(write::write(self, false).as_bytes())
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, in one line.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Width and height of a delivered sample, pixels.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The values of its [`Step::Normalize`].
    #[must_use]
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// How finished batches are mixed, if they are.
    #[must_use]
    pub fn mix(&self) -> Option<&Mix> {
        self.mix.as_ref()
    }

    /// The size samples must have, `None` when any will do.
    #[must_use]
    pub fn sample_size(&self) -> Option<u32> {
        let any_size = |step: &Step| {
            matches!(
                step,
                Step::RandomResizedCrop { .. } | Step::Resize { .. } | Step::CenterCrop
            )
        };
        (!self.steps.iter().any(any_size)).then_some(self.size)
    }

    /// Whether a policy has a place in it.
    #[must_use]
    pub fn takes_policy(&self) -> bool {
        self.steps.contains(&Step::Policy)
    }
}

#[cfg(test)]
mod tests;
