//! Draws a policy file as SVG.
//!
//! ```sh
//! cargo run -p ddas-formats --features plot --example plot_policy -- policy.json policy.svg
//! ```

use std::error::Error;
use std::path::PathBuf;

use ddas_formats::{Policy, policy_svg};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(policy), Some(svg)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plot_policy POLICY.json OUT.svg".into());
    };
    std::fs::write(svg, policy_svg(&Policy::read(&policy)?)?)?;
    Ok(())
}
