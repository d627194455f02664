//! `inspect`: what a dataset says about itself.

use std::path::PathBuf;

use clap::Args;
use ddas_formats::Dataset;

use crate::report;

/// Shows what a dataset holds: samples, classes, size, content hash, how it was packed.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The packed dataset.
    dataset: PathBuf,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let dataset = Dataset::open(&arguments.dataset)?;
    let manifest = dataset.manifest();
    if arguments.json {
        return report::print_json(manifest);
    }
    let packed = &manifest.packed;
    let options: Vec<String> = packed
        .options
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut text = format!(
        "dataset       {}\nsamples       {}\nsize          {}\ncontent hash  {}\nformat        {} {}\npacked from   {} ({}) {}\npacked by     {}\nclasses       {}\n",
        arguments.dataset.display(),
        manifest.samples,
        report::bytes(manifest.bytes),
        manifest.content_hash,
        manifest.format,
        manifest.version,
        packed.name,
        packed.source,
        options.join(" "),
        packed.tool,
        manifest.classes.len(),
    );
    for (label, (class, samples)) in manifest
        .classes
        .iter()
        .zip(&manifest.samples_per_class)
        .enumerate()
    {
        text.push_str(&format!("  {label:>6}  {class}  {samples}\n"));
    }
    report::print(&text)
}
