//! `check-step`.

use anyhow::{Result, bail};
use ddas_search::{DeviceChoice, check_step as compare, prepare_libtorch};

use crate::args::CheckStepArgs;
use crate::output::print;

pub(crate) fn check_step(args: &CheckStepArgs) -> Result<()> {
    prepare_libtorch(DeviceChoice::Cpu, 0)?;
    let differences = compare(&args.file)?;
    let mut worst = 0.0_f64;
    let mut text = String::new();
    for difference in &differences {
        text += &format!("{:<24} {:.3e}\n", difference.name, difference.relative);
        worst = worst.max(difference.relative);
    }
    text += &format!(
        "largest relative difference {worst:.3e}, tolerance {:.1e}\n",
        args.tolerance
    );
    print(&text)?;
    if worst > args.tolerance {
        bail!(
            "{}: the step differs from the file's results",
            args.file.display()
        );
    }
    Ok(())
}
