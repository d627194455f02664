//! `status`: what a running daemon says about itself.

use clap::Args;
use ddas_loader::ring::query_status;

use crate::report;

/// Shows how far a running daemon is, where its time goes, and who holds it back.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's name.
    name: String,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let status = query_status(&arguments.name, None)?;
    if arguments.json {
        return report::print_json(&status);
    }
    let mut text = format!(
        "daemon   {} (process {}), up {:.0} s\n",
        status.name, status.pid, status.uptime_seconds
    );
    let number = |value: &serde_json::Value, key: &str| value[key].as_f64();
    if let (Some(epoch), Some(step)) = (
        number(&status.daemon, "epoch"),
        number(&status.daemon, "step"),
    ) {
        text.push_str(&format!("at       epoch {epoch}, step {step}\n"));
    }
    let total = &status.daemon["total"];
    if let (Some(samples), Some(rate)) =
        (number(total, "samples"), number(total, "images_per_second"))
    {
        text.push_str(&format!("served   {samples} images, {rate:.0} images/s\n"));
        let stages = ["read", "decode", "augment", "write", "wait", "idle"];
        let seconds = stages.map(|stage| number(total, &format!("{stage}_seconds")).unwrap_or(0.0));
        let all = seconds.iter().sum::<f64>().max(1e-9);
        let shares: Vec<String> = stages
            .iter()
            .zip(seconds)
            .map(|(stage, seconds)| format!("{stage} {:.0} %", 100.0 * seconds / all))
            .collect();
        text.push_str(&format!(
            "workers  {} (wait: for the trainer; idle: for each other)\n",
            shares.join(", ")
        ));
        text.push_str(&format!(
            "limit    {}\n",
            total["limit"].as_str().unwrap_or("unknown")
        ));
    }
    for rank in &status.ranks {
        text.push_str(&format!(
            "rank {:<3} {}, {} batches published, {} of {} slots being written",
            rank.rank, rank.state, rank.published, rank.writing, rank.slots
        ));
        if let Some(seconds) = rank.held_back_seconds {
            text.push_str(&format!(", held back by consumers for {seconds:.1} s"));
        }
        text.push('\n');
        for consumer in &rank.consumers {
            let process = consumer
                .pid
                .map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            text.push_str(&format!(
                "         consumer: process {process}, joined {:.0} s ago, {} batches behind\n",
                consumer.connected_seconds, consumer.behind
            ));
        }
    }
    report::print(&text)
}
