//! `policy builtin`.

use std::path::PathBuf;

use clap::{Args, value_parser};
use ddas_formats::{Builtin, BuiltinOptions, Error, Policy};

use crate::report;

#[derive(Args)]
pub(crate) struct Make {
    /// Which policy, or a configuration string of timm such as rand-m9-n3-mstd0.5-inc1.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// The policy file to write.
    #[arg(
        short,
        long,
        value_name = "FILE.json",
        required_unless_present = "list"
    )]
    out: Option<PathBuf>,
    /// Operations per sample, N of RandAugment [default: 2].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    draws: Option<u32>,
    /// Strength, M of RandAugment, on the scale of the source [default: 9; randaugment-tf: 10].
    #[arg(long, value_name = "M")]
    magnitude: Option<u32>,
    /// Side of the images in pixels, for policies that cut by it (uniformaugment) [default: 32].
    #[arg(long, value_name = "PX")]
    image_size: Option<u32>,
    /// Lists the policies there are.
    #[arg(long, conflicts_with_all = ["name", "out", "draws", "magnitude", "image_size"])]
    list: bool,
}

impl Make {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (Some(name), Some(out)) = (self.name, self.out) else {
            return report::print(&list());
        };
        let options = BuiltinOptions {
            draws: self.draws,
            magnitude: self.magnitude,
            image_size: self.image_size,
        };
        let policy = Policy::builtin(&name, &options).map_err(|error| match error {
            Error::Field { .. } | Error::UnknownName { .. } => {
                anyhow::Error::from(report::Usage(error.to_string()))
            }
            other => other.into(),
        })?;
        policy.write(&out)?;
        report::print_line(&format!("{}: {}", out.display(), super::summary(&policy)))
    }
}

fn list() -> String {
    let mut text = String::new();
    for builtin in Builtin::ALL {
        let mut options = Vec::new();
        if let Some(draws) = builtin.draws {
            options.push(format!("--draws [{draws}]"));
        }
        if let Some((magnitude, largest)) = builtin.magnitude {
            options.push(format!("--magnitude 0..{largest} [{magnitude}]"));
        }
        if builtin.needs_image_size {
            options.push("--image-size [32]".to_owned());
        }
        text += &format!("{:<22} {}\n", builtin.name, builtin.summary);
        if !options.is_empty() {
            text += &format!("{:<22} {}\n", "", options.join(", "));
        }
    }
    text
}
