//! Energy of the machine's processors, where the kernel tells it (RAPL).

use std::path::{Path, PathBuf};

/// Where Linux lists the counters.
const POWERCAP: &str = "/sys/class/powercap";

/// Counts the energy of the processor packages, whatever runs on them.
///
/// ```
/// use ddas_search::EnergyMeter;
///
/// // None without counters, or without the right to read them.
/// if let Some(mut meter) = EnergyMeter::start() {
///     meter.read(); // every few seconds
///     assert!(meter.joules() >= 0.0);
/// }
/// ```
#[derive(Debug)]
pub struct EnergyMeter {
    packages: Vec<Package>,
    /// Read and not yet told.
    joules: f64,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    /// Microjoules after which the counter begins anew.
    range: u64,
    last: u64,
}

impl EnergyMeter {
    /// A meter that counts from now on; none where no counter can be read.
    pub fn start() -> Option<Self> {
        Self::start_in(Path::new(POWERCAP))
    }

    fn start_in(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // `intel-rapl:0` is a package (AMD's, too); `intel-rapl:0:1` is a part of one.
            if !name.starts_with("intel-rapl:") || name.matches(':').count() != 1 {
                continue;
            }
            let counter = entry.path().join("energy_uj");
            let range = read(&entry.path().join("max_energy_range_uj"));
            if let (Some(last), Some(range)) = (read(&counter), range) {
                packages.push(Package {
                    counter,
                    range,
                    last,
                });
            }
        }
        (!packages.is_empty()).then_some(Self {
            packages,
            joules: 0.0,
        })
    }

    /// Reads the counters. They begin anew after some ten minutes to hours, and twice in between
    /// goes unnoticed: to be called more often than that.
    pub fn read(&mut self) {
        for package in &mut self.packages {
            let Some(now) = read(&package.counter) else {
                continue;
            };
            let passed = match now.checked_sub(package.last) {
                Some(passed) => passed,
                None => now + package.range.saturating_sub(package.last),
            };
            self.joules += passed as f64 / 1e6;
            package.last = now;
        }
    }

    /// Joules since the last call or the start.
    pub fn joules(&mut self) -> f64 {
        self.read();
        std::mem::take(&mut self.joules)
    }
}

fn read(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_summed_and_counters_may_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, energy: u64| {
            let package = folder.path().join(name);
            std::fs::create_dir_all(&package).unwrap();
            std::fs::write(package.join("energy_uj"), format!("{energy}\n")).unwrap();
            std::fs::write(package.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        assert!(EnergyMeter::start_in(folder.path()).is_none());
        write("intel-rapl:0", 1_000_000);
        write("intel-rapl:1", 9_000_000);
        write("intel-rapl:0:0", 0); // a part of package 0, counted there
        let mut meter = EnergyMeter::start_in(folder.path()).unwrap();
        write("intel-rapl:0", 3_500_000);
        write("intel-rapl:1", 500_000);
        write("intel-rapl:0:0", 7_000_000);
        meter.read();
        write("intel-rapl:0", 500_000); // once more from the start: seen, for it was read
        write("intel-rapl:1", 400_000);
        assert_eq!(meter.joules(), 2.5 + 1.5 + 7.0 + 9.9);
        assert_eq!(meter.joules(), 0.0);
        assert!(EnergyMeter::start_in(&folder.path().join("nowhere")).is_none());
    }
}
