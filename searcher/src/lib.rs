//! Learns when and how to augment a dataset, by one-step meta-gradient on a small proxy task.
//!
//! A search trains a small [`Network`] on a few thousand samples. In each step it draws a few
//! policies, makes one augmented copy of the training batch for each, moves the network along the
//! expected gradient under the current policy, and then asks how the validation loss after that
//! move depends on the policy ([`meta_step`]). What comes out is one snapshot of the policy per
//! epoch: a total probability (*when*) and a probability per operation (*how*).
//!
//! - [`PolicyParameters`], [`meta_gradient`] and [`Adam`] are plain arithmetic on about seventy
//!   numbers, without tensors;
//! - [`Architecture`] and [`meta_step`] are the tensors' side of a step;
//! - [`ProxyData`] and [`BatchMaker`] turn a packed dataset into batches;
//! - [`Search`] is the whole of Algorithm 1, [`RunFolder`] what a run leaves on disk, and
//!   [`write_report`] the page that shows it.
//!
//! ```no_run
//! use std::sync::{Arc, atomic::AtomicBool};
//!
//! use ddas_formats::Dataset;
//! use ddas_search::{Config, DeviceChoice, EpochReport, Observer, ProxyData, Search, StepReport, prepare_libtorch};
//!
//! struct Print;
//! impl Observer for Print {
//!     fn step(&mut self, _: &StepReport) -> ddas_search::Result<()> {
//!         Ok(())
//!     }
//!     fn epoch(&mut self, _: &Search, report: &EpochReport) -> ddas_search::Result<()> {
//!         println!("epoch {}: validation loss {}", report.epoch, report.validation_loss);
//!         Ok(())
//!     }
//! }
//!
//! let device = prepare_libtorch(DeviceChoice::Auto, 0)?;
//! let config = Config::preset("cifar10")?;
//! let dataset = Dataset::open("cifar10.lmdb".as_ref())?;
//! let data = ProxyData::load(&dataset, &config)?;
//! let mut search = Search::new(Arc::new(data), &config, device)?;
//! search.run(1, &AtomicBool::new(false), &mut Print)?;
//! search.policy("cifar10.lmdb", "cifar10")?.write("policy.json".as_ref())?;
//! # Ok::<(), ddas_search::Error>(())
//! ```
#![deny(unsafe_code)]

mod adam;
mod agreement;
mod batches;
mod check_step;
mod checkpoint;
mod config;
mod dead_gradient;
mod energy;
mod epoch;
mod error;
mod libtorch;
mod meta_gradient;
mod networks;
mod policy_parameters;
mod prefetch;
mod presets;
mod proxy_data;
mod report;
mod run_folder;
mod search;
mod settings;
mod split;
mod step;

pub use adam::{Adam, AdamState};
pub use agreement::{Agreement, Compared, RankCorrelation, agreement};
pub use batches::{BatchMaker, BatchScratch, TrainBatch, ValidationBatches};
pub use check_step::{StepDifference, check_step};
pub use config::{Config, Crop, SnapshotAt};
pub use dead_gradient::{DeadSteps, GradientNorms};
pub use energy::EnergyMeter;
pub use epoch::EpochReport;
pub use error::{Error, Result};
pub use libtorch::{DeviceChoice, prepare_libtorch};
pub use meta_gradient::{Branch, MetaGradient, meta_gradient};
pub use networks::{Architecture, Engine, Network, NetworkChoice, Parameters, Precision};
pub use policy_parameters::{BranchWeights, PolicyParameters};
pub use proxy_data::{EncodedImage, ProxyData, Samples};
pub use report::write_report;
pub use run_folder::{Metric, MetricsWriter, RunFolder, RunRecord};
pub use search::{Ending, Observer, PARTIAL, Search, StepReport};
pub use settings::SettingHelp;
pub use split::{Split, class_split, stratified_split};
pub use step::{LossReduction, Sgd, StepBatch, StepOptions, StepOutcome, meta_step};
