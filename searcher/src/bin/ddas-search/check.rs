//! `check-step`.

use anyhow::{Result, bail};
use ddas_search::{DeviceChoice, check_step as compare, prepare_libtorch};

use crate::args::CheckStepArgs;

pub(crate) fn check_step(args: &CheckStepArgs) -> Result<()> {
    prepare_libtorch(DeviceChoice::Cpu, 0)?;
    let differences = compare(&args.file)?;
    let mut worst = 0.0_f64;
    for difference in &differences {
        println!("{:<24} {:.3e}", difference.name, difference.relative);
        worst = worst.max(difference.relative);
    }
    println!(
        "largest relative difference {worst:.3e}, tolerance {:.1e}",
        args.tolerance
    );
    if worst > args.tolerance {
        bail!(
            "{}: the step differs from the file's results",
            args.file.display()
        );
    }
    Ok(())
}
