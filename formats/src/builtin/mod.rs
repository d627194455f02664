//! Policies known from elsewhere, in the form of a policy file: one snapshot,
//! every sample augmented as the source does it.
//!
//! Each family has a file of its own that names its source. What is reproduced
//! is the exact distribution over operations with resolved arguments; where
//! the pixels of an operation differ from the source's, `docs/policies.md` says so.

mod auto_augment;
mod ildoonet;
mod operations;
mod tensorflow;
mod timm;
pub(crate) mod torchvision;
mod uniform_augment;

use std::collections::BTreeMap;

use crate::{Entry, Error, Operation, Policy, Provenance, Result, SearchSpace, Snapshot};

/// A policy that [`Policy::builtin`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The name it is asked for by.
    pub name: &'static str,
    /// What it is and where it comes from, in one line.
    pub summary: &'static str,
    /// Entries drawn per sample unless told; `None` when the definition fixes it.
    pub draws: Option<u32>,
    /// Magnitude unless told, and the largest; `None` when the definition has none.
    pub magnitude: Option<(u32, u32)>,
    /// Whether sizes are those of images of a certain side, 32 unless told.
    pub needs_image_size: bool,
}

impl Builtin {
    /// Every built-in policy.
    pub const ALL: [Builtin; 11] = [
        Builtin {
            name: "identity",
            summary: "no augmentation",
            ..FIXED
        },
        Builtin {
            name: "randaugment",
            summary: "RandAugment of torchvision: 14 operations, magnitudes 0 to 30",
            draws: Some(2),
            magnitude: Some((9, 30)),
            ..FIXED
        },
        Builtin {
            name: "randaugment-timm",
            summary: "RandAugment of timm with -mstd0.5-inc1; any rand-..., original..., v0... of timm is a name, too",
            draws: Some(2),
            magnitude: Some((9, 10)),
            ..FIXED
        },
        Builtin {
            name: "randaugment-ildoonet",
            summary: "RandAugment of ildoonet/pytorch-randaugment: 16 operations, magnitudes 0 to 30",
            draws: Some(2),
            magnitude: Some((9, 30)),
            ..FIXED
        },
        Builtin {
            name: "randaugment-tf",
            summary: "RandAugment of TensorFlow's EfficientNet: 16 operations, magnitudes from 0, 10 being full",
            draws: Some(2),
            magnitude: Some((10, 100)),
            ..FIXED
        },
        Builtin {
            name: "trivialaugment-wide",
            summary: "TrivialAugmentWide of torchvision: one operation, any of 31 strengths",
            ..FIXED
        },
        Builtin {
            name: "uniformaugment",
            summary: "UniformAugment as in the TrivialAugment authors' code: two operations, each applied with probability 1/2, any of 31 strengths",
            needs_image_size: true,
            ..FIXED
        },
        Builtin {
            name: "autoaugment-cifar10",
            summary: "AutoAugment's policy for CIFAR-10, as torchvision has it",
            ..FIXED
        },
        Builtin {
            name: "autoaugment-svhn",
            summary: "AutoAugment's policy for SVHN, as torchvision has it",
            ..FIXED
        },
        Builtin {
            name: "autoaugment-imagenet",
            summary: "AutoAugment's policy for ImageNet, as torchvision has it",
            ..FIXED
        },
        Builtin {
            name: "autoaugment-v0",
            summary: "policy v0 of TensorFlow's EfficientNet",
            ..FIXED
        },
    ];
}

const FIXED: Builtin = Builtin {
    name: "",
    summary: "",
    draws: None,
    magnitude: None,
    needs_image_size: false,
};

/// What the user of a built-in policy may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltinOptions {
    /// Operations per sample (N of RandAugment).
    pub draws: Option<u32>,
    /// Strength (M of RandAugment), on the scale of the source.
    pub magnitude: Option<u32>,
    /// Side of the images in pixels.
    pub image_size: Option<u32>,
}

/// Entries with their shares, which need not sum to one.
type Weighted = Vec<(f64, Entry)>;

/// What a family's file gives.
struct Definition {
    draws: u32,
    entries: Weighted,
    /// Program and version whose behaviour it is.
    source: (&'static str, &'static str),
}

/// Side of images unless told: what CIFAR's are.
const IMAGE_SIZE: u32 = 32;

impl Policy {
    /// A policy known from elsewhere: one of [`Builtin::ALL`], or a
    /// configuration string of timm such as `rand-m9-n3-mstd0.5-inc1`.
    ///
    /// Provenance names the source.
    ///
    /// ```
    /// use ddas_formats::{BuiltinOptions, Policy};
    ///
    /// let policy = Policy::builtin("autoaugment-cifar10", &BuiltinOptions::default())?;
    /// assert_eq!(policy.search_space().len(), 25);
    /// let options = BuiltinOptions { draws: Some(3), magnitude: Some(5), ..Default::default() };
    /// let policy = Policy::builtin("randaugment", &options)?;
    /// assert_eq!(policy.search_space().name(), "randaugment-n3-m5");
    /// # Ok::<(), ddas_formats::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another name; [`Error::Field`] for an option
    /// that is out of range or that the policy does not have.
    pub fn builtin(name: &str, options: &BuiltinOptions) -> Result<Policy> {
        if timm::is_config(name) {
            check_options(
                &Builtin {
                    name: "a configuration string of timm",
                    ..FIXED
                },
                options,
            )?;
            return policy(name.to_owned(), name, timm::from_config(name)?);
        }
        let Some(builtin) = Builtin::ALL.iter().find(|builtin| builtin.name == name) else {
            return Err(Error::UnknownName {
                what: "built-in policy",
                name: name.to_owned(),
                known: Builtin::ALL
                    .iter()
                    .map(|builtin| builtin.name.to_owned())
                    .chain(["rand-... (timm)".to_owned()])
                    .collect(),
            });
        };
        check_options(builtin, options)?;
        let draws = options.draws.or(builtin.draws).unwrap_or(1);
        let magnitude = options
            .magnitude
            .or(builtin.magnitude.map(|(default, _)| default))
            .unwrap_or(0);
        let definition = match name {
            "identity" => Definition {
                draws: 1,
                entries: equal(vec![Operation::Identity.into()]),
                source: ("ddas-formats", env!("CARGO_PKG_VERSION")),
            },
            "randaugment" => torchvision::definition(
                draws,
                equal(
                    torchvision::randaugment(magnitude)
                        .into_iter()
                        .map(Entry::from)
                        .collect(),
                ),
            ),
            "randaugment-timm" => {
                timm::from_config(&format!("rand-m{magnitude}-n{draws}-mstd0.5-inc1"))?
            }
            "randaugment-ildoonet" => ildoonet::randaugment(draws, magnitude),
            "randaugment-tf" => tensorflow::randaugment(draws, magnitude),
            "trivialaugment-wide" => torchvision::definition(
                1,
                torchvision::trivial_augment_wide()
                    .into_iter()
                    .map(|(share, operation)| (share, operation.into()))
                    .collect(),
            ),
            "uniformaugment" => {
                uniform_augment::definition(options.image_size.unwrap_or(IMAGE_SIZE))
            }
            "autoaugment-cifar10" => {
                torchvision::definition(1, torchvision::auto_augment(&auto_augment::CIFAR10)?)
            }
            "autoaugment-svhn" => {
                torchvision::definition(1, torchvision::auto_augment(&auto_augment::SVHN)?)
            }
            "autoaugment-imagenet" => {
                torchvision::definition(1, torchvision::auto_augment(&auto_augment::IMAGENET)?)
            }
            _ => tensorflow::policy_v0()?,
        };
        let mut space = name.to_owned();
        if builtin.magnitude.is_some() {
            space += &format!("-n{draws}-m{magnitude}");
        }
        if builtin.needs_image_size {
            space += &format!("-{}px", options.image_size.unwrap_or(IMAGE_SIZE));
        }
        policy(space, name, definition)
    }
}

/// Refuses options that the policy does not have, and magnitudes beyond its scale.
fn check_options(builtin: &Builtin, options: &BuiltinOptions) -> Result<()> {
    let without = |field: &str, given: bool, has: bool| {
        if given && !has {
            Err(Error::field(
                field,
                format!("{} has no such option", builtin.name),
            ))
        } else {
            Ok(())
        }
    };
    without("draws", options.draws.is_some(), builtin.draws.is_some())?;
    without(
        "magnitude",
        options.magnitude.is_some(),
        builtin.magnitude.is_some(),
    )?;
    without(
        "image_size",
        options.image_size.is_some(),
        builtin.needs_image_size,
    )?;
    if let (Some(magnitude), Some((_, largest))) = (options.magnitude, builtin.magnitude)
        && magnitude > largest
    {
        return Err(Error::field(
            "magnitude",
            format!("{magnitude}; {} goes from 0 to {largest}", builtin.name),
        ));
    }
    match options.image_size {
        Some(size) if size == 0 || size > crate::MAX_SIDE => Err(Error::field(
            "image_size",
            format!("{size}; a side has 1 to {} pixels", crate::MAX_SIDE),
        )),
        _ => Ok(()),
    }
}

fn policy(space: String, preset: &str, definition: Definition) -> Result<Policy> {
    let sum: f64 = definition.entries.iter().map(|(weight, _)| weight).sum();
    let (weights, entries): (Vec<f64>, Vec<Entry>) = definition
        .entries
        .into_iter()
        .filter(|(weight, _)| *weight > 0.0)
        .unzip();
    // Shares that sum to one but for rounding stay the round numbers they are.
    let sum = if (sum - 1.0).abs() < 1e-12 { 1.0 } else { sum };
    let probabilities = weights.iter().map(|weight| weight / sum).collect();
    let space = SearchSpace::of_entries(space, definition.draws, entries)?;
    let provenance = Provenance {
        preset: Some(format!("builtin {preset}")),
        versions: BTreeMap::from([(
            definition.source.0.to_owned(),
            definition.source.1.to_owned(),
        )]),
        ..Provenance::default()
    };
    Ok(Policy::new(space, vec![Snapshot::new(1.0, probabilities)?])?.with_provenance(provenance))
}

/// Entries of equal shares.
fn equal(entries: Vec<Entry>) -> Weighted {
    entries.into_iter().map(|entry| (1.0, entry)).collect()
}

/// Operations at each of their strengths, those that come out the same as one.
fn merged(operations: impl Iterator<Item = (f64, Operation)>) -> Weighted {
    let mut merged: Vec<(f64, Operation)> = Vec::new();
    for (share, operation) in operations {
        match merged.last_mut() {
            Some((of, last)) if *last == operation => *of += share,
            _ => merged.push((share, operation)),
        }
    }
    merged
        .into_iter()
        .map(|(share, operation)| (share, operation.into()))
        .collect()
}

#[cfg(test)]
mod tests;
