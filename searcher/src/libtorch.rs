//! Preparing libtorch: its CUDA part, its memory, its threads.
//!
//! The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Device;

use crate::error::{Error, Result};

/// Where a search computes, as asked for by the user.
///
/// ```
/// use ddas_search::DeviceChoice;
///
/// assert_eq!("cuda:1".parse::<DeviceChoice>()?, DeviceChoice::Cuda(1));
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// # Ok::<(), ddas_search::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| Error::UnknownName {
            what: "device",
            given: text.to_owned(),
            known: "auto, cpu, cuda, cuda:N".to_owned(),
        })
    }
}

/// Makes libtorch ready for the chosen device; to be called once, before any tensor is made.
///
/// Loads libtorch's CUDA part when it is wanted and there, so one program serves both kinds of
/// machine, and tunes the allocator. `threads` is the number of CPU threads of the network; 0
/// leaves it to libtorch (one per core).
///
/// # Errors
/// [`Error::Setting`] when CUDA is asked for and cannot be used, with the reason.
pub fn prepare_libtorch(choice: DeviceChoice, threads: usize) -> Result<Device> {
    keep_large_blocks();
    if threads > 0 {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
    let fail = |problem: String| Error::Setting {
        key: "--device".to_owned(),
        problem,
    };
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => {
            // The driver's device file costs nothing to look for; libtorch's CUDA part takes
            // a second to load.
            let driver = std::path::Path::new("/dev/nvidiactl").exists();
            let usable = driver && load_cuda().is_ok() && tch::Cuda::is_available();
            Ok(if usable { Device::Cuda(0) } else { Device::Cpu })
        }
        DeviceChoice::Cuda(number) => {
            load_cuda().map_err(|reason| {
                fail(format!(
                    "libtorch's CUDA part cannot be loaded ({reason}); install the full PyTorch \
                     wheel, or search with --device cpu"
                ))
            })?;
            let devices = tch::Cuda::device_count();
            if (number as i64) < devices {
                return Ok(Device::Cuda(number));
            }
            Err(fail(format!(
                "there is no cuda:{number}; this machine has {devices} CUDA devices"
            )))
        }
    }
}

/// Loads libtorch_cuda for the whole process; libtorch registers its CUDA kernels as it loads.
fn load_cuda() -> std::result::Result<(), String> {
    // SAFETY: loading runs the initialisers of PyTorch's own libraries, which are made to be
    // loaded this way (`import torch` does the same) and have no precondition but that
    // libtorch_cpu of the same version is loaded, as it is: this program links it.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    match library {
        Ok(library) => {
            // libtorch keeps pointers into it until the process ends.
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Tells glibc to keep freed blocks of activation size instead of returning them to the system:
/// mapping and clearing them anew in each step costs a third of its time.
fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers, touches the allocator's own settings under its lock,
    // and reports an unknown setting by its result, which does not matter here.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_pytorch() {
        assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        for wrong in ["", "cuda:", "cuda:x", "CPU"] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        assert_eq!(prepare_libtorch(DeviceChoice::Cpu, 0).unwrap(), Device::Cpu);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let error = prepare_libtorch(DeviceChoice::Cuda(4096), 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--device"), "{error}");
    }
}
