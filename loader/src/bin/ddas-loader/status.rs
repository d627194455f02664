//! `status`: what a running daemon says about itself.

use clap::Args;
use ddas_loader::ring::{ConsumerStatus, query_status};

use crate::options::daemon_name;
use crate::report;
use crate::top::verdict;

/// Shows how far a running daemon is, where its time goes, and who holds it back.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's name.
    #[arg(value_parser = daemon_name)]
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
        "daemon   {} {} (process {}), up {:.0} s{}\n",
        status.name,
        status.version,
        status.pid,
        status.uptime_seconds,
        if status.draining { ", draining" } else { "" }
    );
    let number = |value: &serde_json::Value, key: &str| value[key].as_f64();
    if let (Some(epoch), Some(step)) = (
        number(&status.daemon, "epoch"),
        number(&status.daemon, "step"),
    ) {
        text.push_str(&format!("at       epoch {epoch}, step {step}\n"));
    }
    for (report, what) in [("total", "workers "), ("recent", "recently")] {
        let report = &status.daemon[report];
        let (Some(samples), Some(rate)) = (
            number(report, "samples"),
            number(report, "images_per_second"),
        ) else {
            continue;
        };
        let stages = ["read", "decode", "augment", "write", "wait", "idle"];
        let seconds =
            stages.map(|stage| number(report, &format!("{stage}_seconds")).unwrap_or(0.0));
        let all = seconds.iter().sum::<f64>().max(1e-9);
        let shares: Vec<String> = stages
            .iter()
            .zip(seconds)
            .map(|(stage, seconds)| format!("{stage} {:.0} %", 100.0 * seconds / all))
            .collect();
        text.push_str(&format!(
            "{what} {samples} images, {rate:.0} images/s; {}\n",
            shares.join(", ")
        ));
    }
    text.push_str("         (worker time; wait: for the trainer; idle: for each other)\n");
    text.push_str(&format!("limit    {}\n", verdict(&status.daemon["recent"])));
    if let Some(bad) = number(&status.daemon, "bad_samples").filter(|bad| *bad > 0.0) {
        text.push_str(&format!(
            "bad      {bad} samples, replaced {} times\n",
            status.daemon["substituted"]
        ));
    }
    if let Some(bytes) = status.memory.resident_bytes {
        text.push_str(&format!(
            "memory   {}, {} of them rings\n",
            report::bytes(bytes),
            report::bytes(status.memory.ring_bytes)
        ));
    }
    for rank in &status.ranks {
        text.push_str(&format!(
            "rank {:<3} {}, {} batches published, {:.1} batches/s; slots: {} ready, {} being written, {} free",
            rank.rank,
            rank.state,
            rank.published,
            rank.recent.batches_per_second,
            rank.ready,
            rank.writing,
            rank.free
        ));
        if let Some(seconds) = rank.held_back_seconds {
            text.push_str(&format!(", held back by consumers for {seconds:.1} s"));
        }
        text.push('\n');
        for consumer in &rank.consumers {
            text.push_str(&consumer_line(consumer));
        }
        if rank.consumers_left_out > 0 {
            text.push_str(&format!(
                "         and {} more consumers\n",
                rank.consumers_left_out
            ));
        }
    }
    report::print(&text)
}

fn consumer_line(consumer: &ConsumerStatus) -> String {
    let process = consumer
        .pid
        .map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let acknowledged = consumer.acknowledged.map_or_else(
        || "nothing acknowledged".to_owned(),
        |at| format!("acknowledged up to {}:{}", at.epoch, at.step),
    );
    let waited = consumer
        .waited_seconds
        .map_or_else(String::new, |seconds| format!(", waited {seconds:.1} s"));
    let now = match (consumer.waiting_seconds, consumer.holding_seconds) {
        (waiting, _) if waiting > 0.0 => format!(", waiting for {waiting:.1} s"),
        (_, holding) if holding > 0.0 => format!(", holding a batch for {holding:.1} s"),
        _ => String::new(),
    };
    format!(
        "         consumer: process {process} {}, joined {:.0} s ago, {acknowledged}, {} batches behind{waited}{now}\n",
        consumer.name, consumer.connected_seconds, consumer.behind
    )
}
