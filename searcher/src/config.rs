//! The settings of a search: presets, `--set key=value`, and their checks.

use ddas_formats::SearchSpace;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::networks::{Engine, NetworkChoice, Precision};
use crate::settings::{SETTINGS, SettingHelp};
use crate::step::LossReduction;

/// Every number of a search.
///
/// ```
/// use ddas_search::Config;
///
/// let mut config = Config::preset("cifar10")?;
/// assert_eq!((config.epochs, config.train_batch), (20, 32));
/// config.set("epochs=5")?;
/// assert_eq!(config.steps_per_epoch() * config.epochs, 62 * 5);
/// let error = config.set("epochs=many").unwrap_err().to_string();
/// assert!(error.contains("a whole number"));
/// # Ok::<(), ddas_search::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of a search space, or path of a JSON file with one.
    pub search_space: String,
    /// Operations per augmented sample; none leaves it to the search space.
    pub draws_per_sample: Option<u32>,
    /// Proxy network: the name of an [`Architecture`](crate::Architecture) or the file of a
    /// TorchScript module.
    pub network: String,
    /// What the network's convolutions compute in.
    pub precision: Precision,
    /// What computes the network's gradients. A run's settings hold the one chosen at its start.
    #[serde(default = "Engine::of_earlier_versions")]
    pub engine: Engine,
    /// Side in pixels of the square images the network sees.
    pub image_size: u32,
    /// Search epochs; the policy gets one snapshot each.
    pub epochs: u32,
    /// Samples drawn, class by class, for the network's training.
    pub train_samples: u64,
    /// Samples drawn for the policy's training; disjoint from the others.
    pub validation_samples: u64,
    /// Classes that the proxy data are drawn from, equally many samples of each; none takes all
    /// classes in the dataset's proportions.
    pub classes: Option<u32>,
    /// Samples of a training batch.
    pub train_batch: u64,
    /// Samples of a validation batch.
    pub validation_batch: u64,
    /// Policies drawn in a step, each with its own augmented copy of the batch.
    pub branches: u32,
    /// Chance that a policy is drawn from the operation probabilities under search instead of
    /// uniformly; 1 minus the `explore_ratio` of the authors' code. Its weight in the step is the
    /// same either way.
    #[serde(default)]
    pub exploit_probability: f64,
    /// Learning rate of the network at the start; falls to 0 along a cosine.
    pub learning_rate: f64,
    /// How sample losses are put together, which scales the learning rate.
    pub loss: LossReduction,
    /// Momentum of the network's optimiser.
    pub momentum: f64,
    /// Nesterov's form of the momentum.
    pub nesterov: bool,
    /// Weight decay of the network's optimiser.
    pub weight_decay: f64,
    /// Total probability at the start.
    pub total_probability: f64,
    /// Whether the total probability is learned; otherwise it stays as it starts.
    pub learn_total_probability: bool,
    /// Whether the operation probabilities are learned; otherwise they stay uniform.
    pub learn_operation_probabilities: bool,
    /// Adam's learning rate for the total probability's logit.
    pub total_learning_rate: f64,
    /// Adam's learning rate for the operation probabilities' logits.
    pub operation_learning_rate: f64,
    /// Adam's decay rate of the first moment.
    pub adam_beta1: f64,
    /// Adam's decay rate of the second moment.
    pub adam_beta2: f64,
    /// Whether the policy's gradient carries the network's current learning rate as a factor
    /// (equations 16 and 17 to the letter) and so fades with it; the authors' code leaves it out.
    pub learning_rate_factor: bool,
    /// Whether a copy's inner product with the validation gradient counts relative to the plain
    /// copy's (equation 9); the authors' code means to, but subtracts 0.
    #[serde(default = "equation_nine")]
    pub subtract_plain: bool,
    /// When in its epoch a snapshot is taken.
    pub snapshot: SnapshotAt,
    /// Epochs over which a training run smooths the total probability; 1 is off.
    pub smoothing_window: u32,
    /// How training images are cropped, and whether before or after the operations.
    pub crop: Crop,
    /// Least and greatest share of an image's area that a [`Crop::Resized`] keeps.
    pub crop_scale: [f64; 2],
    /// Whether crop, flip and cutout are drawn once per sample and step and shared by all its
    /// copies; otherwise each copy draws its own.
    pub shared_crop: bool,
    /// Pixels of black border around a training image before it is cropped at random.
    pub crop_padding: u32,
    /// Whether training images are mirrored with probability 1/2.
    pub flip: bool,
    /// Side in pixels of the square cut out of a normalised training image; 0 is none.
    pub cutout: u32,
    /// Whether validation images are turned by 90 degrees counter-clockwise (the paper's sanity
    /// check).
    pub turn_validation: bool,
    /// Mean of each colour on the 0..1 scale, subtracted.
    pub mean: [f32; 3],
    /// Standard deviation of each colour on the 0..1 scale, divided by.
    pub std: [f32; 3],
    /// Decides the split, the initial weights and every draw.
    pub seed: u64,
}

/// When in its epoch a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotAt {
    /// Before its first step, as in the authors' code: the first snapshot holds the values that
    /// the search starts from, and the last epoch's learning is in none.
    Start,
    /// After its last step, as in the paper's Algorithm 1.
    End,
}

/// How training images are cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// A square out of the image within a black border, after the operations (CIFAR).
    Padded,
    /// A random part of the image as it is stored, resized by a bicubic filter, before the
    /// operations (ImageNet). Validation images are resized and cropped about their centre.
    Resized,
}

/// [`Config::subtract_plain`] of runs that began before there was the setting.
fn equation_nine() -> bool {
    true
}

impl Config {
    /// Every key that [`Config::set`] takes, in the order of the struct.
    pub const SETTINGS: &[SettingHelp] = SETTINGS;

    /// Applies one `key=value`.
    ///
    /// # Errors
    /// [`Error::Setting`] when there is no `=`, the key is unknown (the message lists all), or the
    /// value is not what the key takes. Ranges are checked by [`Config::validate`].
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let fail = |key: &str, problem: String| Error::Setting {
            key: key.to_owned(),
            problem,
        };
        let (key, text) = assignment
            .split_once('=')
            .ok_or_else(|| fail(assignment, "expected KEY=VALUE".to_owned()))?;
        let (key, text) = (key.trim(), text.trim());
        let Some(setting) = Self::SETTINGS.iter().find(|setting| setting.key == key) else {
            let keys: Vec<&str> = Self::SETTINGS.iter().map(|setting| setting.key).collect();
            return Err(fail(
                key,
                format!("no such key; the keys are {}", keys.join(", ")),
            ));
        };
        let wrong = || fail(key, format!("expected {}, got `{text}`", setting.expects));
        let mut fields = serde_json::to_value(&*self).map_err(|_| wrong())?;
        let Some(field) = fields.get_mut(key) else {
            return Err(wrong());
        };
        *field = if field.is_string() {
            serde_json::Value::String(text.to_owned())
        } else {
            serde_json::from_str(text).map_err(|_| wrong())?
        };
        *self = serde_json::from_value(fields).map_err(|_| wrong())?;
        Ok(())
    }

    /// Checks every range and name, but for those that need the dataset.
    ///
    /// # Errors
    /// [`Error::Setting`] with the key, what was expected and what was given;
    /// [`Error::UnknownName`] for the network.
    pub fn validate(&self) -> Result<()> {
        let require = |sound: bool, key: &str, wanted: &str, given: &dyn std::fmt::Display| {
            if sound {
                return Ok(());
            }
            let problem = format!("must be {wanted}, not {given}");
            Err(Error::Setting {
                key: key.to_owned(),
                problem,
            })
        };
        let network: NetworkChoice = self.network.parse()?;
        require(
            network.module().is_none() || self.precision == Precision::F32,
            "precision",
            "f32 for a TorchScript module, which computes in its own kinds",
            &"bf16",
        )?;
        // The device and the processor are not known yet.
        let (kind, device) = (tch::Kind::Float, tch::Device::Cpu);
        if self.engine == Engine::Native {
            self.engine
                .resolve(&network, self.precision, kind, device)?;
        }
        if let Some(classes) = self.classes {
            let key = "classes";
            require(classes >= 2, key, "at least 2, or null for all", &classes)?;
            for (key, samples) in [
                ("train_samples", self.train_samples),
                ("validation_samples", self.validation_samples),
            ] {
                require(
                    samples.is_multiple_of(u64::from(classes)),
                    key,
                    &format!("a multiple of `classes`, which is {classes}"),
                    &samples,
                )?;
            }
        }
        let [least, greatest] = self.crop_scale;
        require(
            least > 0.0 && least <= greatest && greatest <= 1.0,
            "crop_scale",
            "two shares of the area, 0 < least <= greatest <= 1",
            &format!("[{least},{greatest}]"),
        )?;
        require(
            self.crop == Crop::Padded || self.crop_padding == 0,
            "crop_padding",
            "0 where `crop` is resized",
            &self.crop_padding,
        )?;
        if let Some(draws) = self.draws_per_sample {
            require(
                (1..=16).contains(&draws),
                "draws_per_sample",
                "from 1 to 16",
                &draws,
            )?;
        }
        let size = self.image_size;
        require(
            (4..=1024).contains(&size),
            "image_size",
            "from 4 to 1024 pixels",
            &size,
        )?;
        require(
            (1..=100_000).contains(&self.epochs),
            "epochs",
            "from 1 to 100000",
            &self.epochs,
        )?;
        require(
            (1..=64).contains(&self.branches),
            "branches",
            "from 1 to 64",
            &self.branches,
        )?;
        for (key, batch, samples_key, samples) in [
            (
                "train_batch",
                self.train_batch,
                "train_samples",
                self.train_samples,
            ),
            (
                "validation_batch",
                self.validation_batch,
                "validation_samples",
                self.validation_samples,
            ),
        ] {
            require(
                (2..=65_536).contains(&batch),
                key,
                "from 2 to 65536",
                &batch,
            )?;
            let wanted = format!("at least `{key}`, which is {batch}");
            require(samples >= batch, samples_key, &wanted, &samples)?;
        }
        for (key, rate) in [
            ("learning_rate", self.learning_rate),
            ("total_learning_rate", self.total_learning_rate),
            ("operation_learning_rate", self.operation_learning_rate),
            ("weight_decay", self.weight_decay),
        ] {
            require(
                rate.is_finite() && rate >= 0.0,
                key,
                "a finite number from 0",
                &rate,
            )?;
        }
        for (key, rate) in [
            ("momentum", self.momentum),
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
        ] {
            require(
                (0.0..1.0).contains(&rate),
                key,
                "at least 0 and below 1",
                &rate,
            )?;
        }
        let exploit = self.exploit_probability;
        require(
            (0.0..=1.0).contains(&exploit),
            "exploit_probability",
            "from 0 to 1",
            &exploit,
        )?;
        let total = self.total_probability;
        require(
            total > 0.0 && total < 1.0
                || (0.0..=1.0).contains(&total) && !self.learn_total_probability,
            "total_probability",
            "above 0 and below 1 (0 and 1, too, where it is fixed)",
            &total,
        )?;
        let momentum = self.momentum;
        require(
            !self.nesterov || momentum > 0.0,
            "nesterov",
            "false without `momentum`",
            &self.nesterov,
        )?;
        let window = self.smoothing_window;
        require(window >= 1, "smoothing_window", "at least 1", &window)?;
        let wanted = "at most `image_size`";
        require(
            self.crop_padding <= size,
            "crop_padding",
            wanted,
            &self.crop_padding,
        )?;
        require(
            self.cutout <= 2 * size,
            "cutout",
            "at most twice `image_size`",
            &self.cutout,
        )?;
        for colour in 0..3 {
            let (mean, std) = (self.mean[colour], self.std[colour]);
            require((0.0..=1.0).contains(&mean), "mean", "from 0 to 1", &mean)?;
            require(std > 0.0 && std.is_finite(), "std", "greater than 0", &std)?;
        }
        Ok(())
    }

    /// Full training batches in an epoch; the rest of the shuffled samples waits for the next.
    pub fn steps_per_epoch(&self) -> u32 {
        u32::try_from(self.train_samples / self.train_batch.max(1)).unwrap_or(u32::MAX)
    }

    /// Steps of the whole search.
    pub fn steps(&self) -> u64 {
        u64::from(self.steps_per_epoch()) * u64::from(self.epochs)
    }

    /// Whether one step costs as much as one of `other`: the same work on batches of the same
    /// size.
    pub fn steps_cost_the_same(&self, other: &Self) -> bool {
        let work = |config: &Self| {
            let sizes = (config.train_batch, config.validation_batch, config.branches);
            // The engine is that of the machine, where the settings leave it to be chosen.
            let network = (config.network.clone(), config.precision);
            (network, config.image_size, config.crop, sizes)
        };
        work(self) == work(other)
    }

    /// The search space named by the settings, or read from the file they name.
    ///
    /// # Errors
    /// [`Error::Setting`] when it is neither a known name nor a readable file with a valid search
    /// space.
    pub fn resolve_search_space(&self) -> Result<SearchSpace> {
        let fail = |problem: String| Error::Setting {
            key: "search_space".to_owned(),
            problem,
        };
        let space = if SearchSpace::NAMES.contains(&self.search_space.as_str()) {
            SearchSpace::named(&self.search_space)?
        } else {
            let path = std::path::Path::new(&self.search_space);
            if !path.is_file() {
                return Err(fail(format!(
                    "`{}` is neither a file nor one of {}",
                    self.search_space,
                    SearchSpace::NAMES.join(", ")
                )));
            }
            let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
            serde_json::from_str(&text)
                .map_err(|error| fail(format!("{}: {error}", path.display())))?
        };
        let operations = space
            .plain_operations()
            .map_err(|error| fail(error.to_string()))?;
        match self.draws_per_sample {
            None => Ok(space),
            Some(draws) => Ok(SearchSpace::new(space.name(), draws, operations)?),
        }
    }
}

#[cfg(test)]
mod tests;
