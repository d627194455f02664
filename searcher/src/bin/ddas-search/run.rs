//! `run`, `resume` and `report`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use ddas_formats::{Dataset, SearchSpace};
use ddas_search::{
    Config, DeviceChoice, Ending, EnergyMeter, EpochReport, Metric, MetricsWriter, NetworkChoice,
    Observer, ProxyData, RunFolder, RunRecord, Search, StepReport, prepare_libtorch, write_report,
};

use xxhash_rust::xxh3::xxh3_64;

use crate::args::{ReportArgs, ResumeArgs, RunArgs, Usage};
use crate::output::{print, say};
use crate::progress::{Estimate, Progress};

pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let config = resolve(args)?;
    prepare_output(&args.output)?;
    let dataset = Dataset::open(&args.dataset)?;
    let device = prepare_libtorch(args.machine.device, args.machine.threads)?;
    let data = ProxyData::load(&dataset, &config)?;
    let mut record = RunRecord {
        format: RunRecord::FORMAT.to_owned(),
        version: RunRecord::VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        dataset: absolute(&args.dataset)?,
        content_hash: dataset.manifest().content_hash.clone(),
        preset: args.preset.clone(),
        output: absolute(&args.output)?,
        device: device_name(device),
        threads: u32::try_from(tch::get_num_threads()).unwrap_or(1),
        network_hash: network_hash(&config)?,
        search_space_hash: search_space_hash(&config)?,
        settings: config,
    };
    let search = Search::new(Arc::new(data), &record.settings, device)?;
    // A resumed run computes with what this one does, whatever the defaults are by then.
    record.settings = search.config().clone();
    let run_dir = args
        .run_dir
        .clone()
        .unwrap_or_else(|| default_run_dir(&args.output));
    let folder = RunFolder::create(&run_dir, &record, args.overwrite)?;
    go(search, &folder, &record)
}

pub(crate) fn resume(args: &ResumeArgs) -> Result<()> {
    let (folder, record) = RunFolder::open(&args.run_dir)?;
    let dataset = Dataset::open(&record.dataset)?;
    if dataset.manifest().content_hash != record.content_hash {
        bail!(
            "{} no longer holds the data of this run; start a new one",
            record.dataset.display()
        );
    }
    if network_hash(&record.settings)? != record.network_hash {
        bail!(
            "{} is no longer the network of this run; start a new one",
            record.settings.network
        );
    }
    // Runs of builds before do not know theirs.
    if record.search_space_hash.is_some()
        && search_space_hash(&record.settings)? != record.search_space_hash
    {
        bail!(
            "{} is no longer the search space of this run; put it back or start a new run",
            record.settings.search_space
        );
    }
    prepare_output(&record.output)?;
    let device: DeviceChoice = record.device.parse()?;
    let device = prepare_libtorch(device, record.threads as usize)?;
    let data = ProxyData::load(&dataset, &record.settings)?;
    let mut search = Search::new(Arc::new(data), &record.settings, device)?;
    if folder.checkpoint().exists() {
        search.restore_checkpoint(&folder.checkpoint())?;
    }
    say(format_args!(
        "{} of {} epochs and {} steps of the next are done",
        search.snapshots().len(),
        record.settings.epochs,
        search.steps_done()
    ));
    go(search, &folder, &record)
}

pub(crate) fn report(args: &ReportArgs) -> Result<()> {
    let (folder, record) = RunFolder::open(&args.run_dir)?;
    let output = args.output.clone().unwrap_or_else(|| folder.report());
    write_report(&folder, &record, &output)?;
    print(&format!("{}\n", output.display()))
}

/// The preset with every change applied, checked before anything is read or written.
fn resolve(args: &RunArgs) -> Result<Config> {
    let mut config = Config::preset(&args.preset)?;
    for assignment in &args.set {
        config.set(assignment).map_err(Usage)?;
    }
    for assignment in args.ablations.settings() {
        config.set(&assignment).map_err(Usage)?;
    }
    if let Some(space) = &args.search_space {
        config.search_space = space.clone();
    }
    if let Some(network) = &args.model {
        config.network = network.clone();
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    config.validate().map_err(Usage)?;
    // A run is resumed from any folder.
    if let NetworkChoice::Module(path) = config.network.parse()? {
        config.network = absolute(&path)?.display().to_string();
    }
    let space = Path::new(&config.search_space);
    match SearchSpace::NAMES.contains(&config.search_space.as_str()) {
        false if space.is_file() => {
            config.search_space = absolute(space)?.display().to_string();
            config.resolve_search_space()?;
        }
        _ => drop(config.resolve_search_space().map_err(Usage)?),
    }
    Ok(config)
}

/// Makes the folder of the policy, and refuses a place where none can be, before hours are spent
/// on it.
fn prepare_output(output: &Path) -> Result<()> {
    let output = absolute(output)?;
    if output.is_dir() {
        bail!(
            "{} is a folder; --output takes the name of a file",
            output.display()
        );
    }
    let Some(folder) = output.parent() else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "{} cannot be written: no folder {}",
            output.display(),
            folder.display()
        )
    })
}

/// XXH3-64 of the network's file, where it comes from one.
fn network_hash(config: &Config) -> Result<Option<String>> {
    match config.network.parse()? {
        NetworkChoice::Module(path) => hash_of(&path).map(Some),
        NetworkChoice::BuiltIn(_) => Ok(None),
    }
}

/// The same of the search space's file.
fn search_space_hash(config: &Config) -> Result<Option<String>> {
    match SearchSpace::NAMES.contains(&config.search_space.as_str()) {
        true => Ok(None),
        false => hash_of(Path::new(&config.search_space)).map(Some),
    }
}

fn hash_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!("{:016x}", xxh3_64(&bytes)))
}

/// Runs what is left of a search, and writes what it found however it ends.
fn go(mut search: Search, folder: &RunFolder, record: &RunRecord) -> Result<()> {
    let stop = stop_on_signals()?;
    let config = &record.settings;
    let machine = match record.device.as_str() {
        "cpu" => format!("cpu ({} threads)", record.threads),
        device => device.to_owned(),
    };
    let (first_epoch, first_step) = (search.snapshots().len() as u32, search.steps_done());
    let steps = search.steps_per_epoch();
    say(format_args!(
        "search: preset {}, {}, {} operations ({}), {} epochs of {} steps, {}, seed {}",
        record.preset,
        config.network,
        search.search_space().len(),
        search.search_space().name(),
        config.epochs,
        steps,
        machine,
        config.seed
    ));
    let estimate = Estimate {
        preset: record.preset.clone(),
        settings: config.clone(),
        machine,
    };
    let mut observer = Recorder {
        progress: Progress::start(
            estimate,
            steps,
            u64::from(first_epoch) * u64::from(steps) + u64::from(first_step),
        ),
        metrics: folder.append_metrics(first_epoch, first_step)?,
        energy: EnergyMeter::start(),
        folder,
        record,
    };
    // On the CPU a batch takes a hundredth of the step it is for; a GPU waits otherwise.
    let workers = match record.device.as_str() {
        "cpu" => 1,
        _ => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
    };
    let ending = search.run(workers, &stop, &mut observer);
    let reason = match &ending {
        Ok(Ending::Finished) => None,
        Ok(Ending::Stopped) => {
            search.save_checkpoint(&folder.checkpoint())?;
            Some("stopped by a signal".to_owned())
        }
        Err(error) => Some(error.to_string()),
    };
    let finished = search.snapshots().len();
    if let Some(reason) = reason {
        observer.metrics.write(&Metric::Stopped {
            epoch: finished as u32,
            step: search.steps_done(),
            reason,
        })?;
    }
    // What a search that diverged in its first epoch has is nothing to train with.
    let usable = finished > 0 || matches!(ending, Ok(Ending::Stopped));
    if usable {
        // In the folder first: what was found is kept even where the output cannot be written.
        let policy = policy_of(&search, record)?;
        policy.write(&folder.policy())?;
        write_report(folder, record, &folder.report())?;
        policy.write(&record.output).with_context(|| {
            format!(
                "the policy is in {}, but could not be written where it was wanted",
                folder.policy().display()
            )
        })?;
    }
    observer.progress.finish();
    if usable {
        say(format_args!("policy: {}", record.output.display()));
        say(format_args!("report: {}", folder.report().display()));
    }
    let resume = format!("ddas-search resume {}", folder.path().display());
    match ending {
        Ok(Ending::Finished) => Ok(()),
        Ok(Ending::Stopped) if finished > 0 => bail!(
            "stopped; the policy holds the {finished} of {} epochs that are done; go on with: \
             {resume}",
            config.epochs
        ),
        Ok(Ending::Stopped) => bail!(
            "stopped before the first epoch was done; the policy holds the probabilities as they \
             stood after {} of its {steps} steps, and is marked as partial; go on with: {resume}",
            search.steps_done()
        ),
        Err(error) => {
            let kept = match finished {
                0 => "no epoch was finished, so there is no policy".to_owned(),
                _ => format!("the policy of {finished} finished epochs was kept"),
            };
            Err(anyhow::Error::new(error).context(kept))
        }
    }
}

fn policy_of(search: &Search, record: &RunRecord) -> Result<ddas_formats::Policy> {
    let dataset = record
        .dataset
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    Ok(search.policy(&dataset, &record.preset)?)
}

/// Writes everything down as it happens.
struct Recorder<'a> {
    progress: Progress,
    metrics: MetricsWriter,
    energy: Option<EnergyMeter>,
    folder: &'a RunFolder,
    record: &'a RunRecord,
}

impl Observer for Recorder<'_> {
    fn step(&mut self, report: &StepReport) -> ddas_search::Result<()> {
        self.metrics.write(&Metric::step(report))?;
        self.progress.step(report);
        if let Some(energy) = &mut self.energy {
            energy.read();
        }
        Ok(())
    }

    fn epoch(&mut self, search: &Search, report: &EpochReport) -> ddas_search::Result<()> {
        if let Some(snapshot) = search.snapshots().last() {
            let joules = self.energy.as_mut().map(EnergyMeter::joules);
            self.metrics
                .write(&Metric::epoch(report, snapshot, joules))?;
            let probabilities = snapshot.operation_probabilities();
            let strongest = (0..probabilities.len())
                .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
                .unwrap_or_default();
            let label = search.search_space().entries()[strongest].label();
            let text = format!("{label} {:.3}", probabilities[strongest]);
            self.progress
                .epoch(report, snapshot.total_probability(), &text);
        }
        let dataset = self
            .record
            .dataset
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        search
            .policy(&dataset, &self.record.preset)?
            .write(&self.folder.policy())?;
        // Last: what it stands for is complete.
        search.save_checkpoint(&self.folder.checkpoint())
    }
}

/// A flag that Ctrl-C and SIGTERM raise; a second Ctrl-C ends the program at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot catch signals")?;
    }
    Ok(stop)
}

fn device_name(device: tch::Device) -> String {
    match device {
        tch::Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

fn default_run_dir(output: &Path) -> PathBuf {
    let mut name = output.file_stem().unwrap_or_default().to_owned();
    name.push("-run");
    output.with_file_name(name)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_folder_lies_beside_the_policy() {
        assert_eq!(
            default_run_dir(Path::new("out/mine.json")),
            Path::new("out/mine-run")
        );
        assert_eq!(
            default_run_dir(Path::new("policy.json")),
            Path::new("policy-run")
        );
    }
}
