//! The settings that searches start from; `docs/search.md` names the source of each.

use crate::config::{Config, Crop, SnapshotAt};
use crate::error::{Error, Result};
use crate::networks::{Engine, Precision};
use crate::step::LossReduction;

impl Config {
    /// Names of the presets.
    pub const PRESETS: &[&str] = &[
        "cifar10",
        "cifar100",
        "imagenet",
        "sanity",
        "cifar10-released",
        "cifar100-released",
        "imagenet-released",
    ];

    /// The settings of a named preset.
    ///
    /// `cifar10` and `cifar100` carry the paper's settings: WRN-40-2, 2,000 + 2,000 samples, 20
    /// epochs, three branches. `sanity` is the paper's section 4.1: the same with validation
    /// images turned by 90 degrees and a search space that can turn images by 90 degrees.
    /// `imagenet` is ResNet-18 on 120 classes of 50 + 10 images, 40 epochs, two branches. Those
    /// that end in `-released` carry the settings of the authors' code where they differ.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a name not in [`Config::PRESETS`].
    pub fn preset(name: &str) -> Result<Self> {
        let cifar = Self {
            search_space: "paper68".to_owned(),
            draws_per_sample: None,
            network: "wrn-40-2".to_owned(),
            precision: Precision::F32,
            engine: Engine::Auto,
            image_size: 32,
            epochs: 20,
            classes: None,
            train_samples: 2000,
            validation_samples: 2000,
            train_batch: 32,
            validation_batch: 256,
            branches: 3,
            exploit_probability: 0.0,
            learning_rate: 0.01,
            loss: LossReduction::Sum,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            total_probability: 0.35,
            learn_total_probability: true,
            learn_operation_probabilities: true,
            total_learning_rate: 0.001,
            operation_learning_rate: 0.005,
            adam_beta1: 0.5,
            adam_beta2: 0.999,
            learning_rate_factor: false,
            subtract_plain: true,
            snapshot: SnapshotAt::End,
            smoothing_window: 1,
            crop: Crop::Padded,
            crop_scale: [0.08, 1.0],
            shared_crop: false,
            crop_padding: 4,
            flip: true,
            cutout: 16,
            turn_validation: false,
            mean: [0.4914, 0.4822, 0.4465],
            std: [0.2023, 0.1994, 0.2010],
            seed: 0,
        };
        match name {
            "cifar10" | "cifar100" => Ok(cifar),
            "cifar10-released" | "cifar100-released" => Ok(Self {
                search_space: "released52-as-run".to_owned(),
                exploit_probability: match name {
                    "cifar10-released" => 1e-5,
                    _ => 1e-4,
                },
                subtract_plain: false,
                snapshot: SnapshotAt::Start,
                seed: 20,
                ..cifar
            }),
            "imagenet" | "imagenet-released" => {
                let imagenet = Self {
                    search_space: "imagenet32".to_owned(),
                    network: "resnet-18".to_owned(),
                    image_size: 224,
                    epochs: 40,
                    classes: Some(120),
                    train_samples: 6000,
                    validation_samples: 1200,
                    validation_batch: 64,
                    branches: 2,
                    learning_rate: 0.002,
                    loss: LossReduction::Mean,
                    momentum: 0.9,
                    nesterov: true,
                    weight_decay: 1e-4,
                    operation_learning_rate: 0.003,
                    smoothing_window: 6,
                    crop: Crop::Resized,
                    shared_crop: true,
                    crop_padding: 0,
                    flip: false,
                    cutout: 0,
                    mean: [0.485, 0.456, 0.406],
                    std: [0.229, 0.224, 0.225],
                    ..cifar
                };
                Ok(match name {
                    "imagenet" => imagenet,
                    _ => Self {
                        validation_samples: 2400,
                        train_batch: 64,
                        branches: 3,
                        exploit_probability: 1e-4,
                        subtract_plain: false,
                        snapshot: SnapshotAt::Start,
                        seed: 20,
                        ..imagenet
                    },
                })
            }
            "sanity" => Ok(Self {
                search_space: "sanity".to_owned(),
                turn_validation: true,
                ..cifar
            }),
            _ => Err(Error::UnknownName {
                what: "preset",
                given: name.to_owned(),
                known: Self::PRESETS.join(", "),
            }),
        }
    }
}
