//! `top`: a dashboard of a running daemon.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ddas_loader::ring::{self, ConsumerStatus, RankStatus, ServerStatus, query_status};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::options::daemon_name;
use crate::report;
use crate::screen::{Key, Screen};
use crate::serve::seconds;

/// Shows a running daemon once a second: rates, stages, slots, consumers, and who is the limit.
///
/// On a terminal the screen is redrawn; q, Escape or Ctrl-C ends. Elsewhere one frame is printed after the other. Ends when
/// the daemon does.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's name.
    #[arg(value_parser = daemon_name)]
    name: String,
    /// Time between two frames.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Print one frame and end.
    #[arg(long)]
    once: bool,
}

/// Rates that the sparkline shows.
const HISTORY: usize = 60;
/// Width of a frame where there is no terminal.
const PLAIN_WIDTH: usize = 100;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut status = query_status(&arguments.name, None)?;
    let mut history = VecDeque::from([rate(&status)]);
    let tty = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if arguments.once || !tty {
        loop {
            report::print(&format!("{}\n", frame(&status, &history, PLAIN_WIDTH)))?;
            if arguments.once {
                return Ok(());
            }
            std::thread::sleep(arguments.interval);
            match next(&arguments.name, &mut history)? {
                Some(found) => status = found,
                None => break,
            }
        }
        report::tell(&farewell(&status));
        return Ok(());
    }
    // Every one of them, however often it comes: the terminal is given back first.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&stop)).context("installing signal handlers")?;
    }
    let mut screen = Screen::open()?;
    'frames: loop {
        let (width, height) = screen.size();
        screen.draw(&frame(&status, &history, width), height)?;
        let until = Instant::now() + arguments.interval;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match screen.key(left.min(Duration::from_millis(100)))? {
                Some(Key::Quit) => return Ok(()),
                Some(Key::Other) => break,
                None => (),
            }
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        match next(&arguments.name, &mut history) {
            Ok(Some(found)) => status = found,
            Ok(None) => break 'frames,
            Err(error) => {
                drop(screen);
                return Err(error);
            }
        }
    }
    drop(screen);
    report::tell(&farewell(&status));
    Ok(())
}

/// The next status; `None` once the daemon is gone.
fn next(name: &str, history: &mut VecDeque<f64>) -> anyhow::Result<Option<ServerStatus>> {
    match query_status(name, None) {
        Ok(status) => {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(rate(&status));
            Ok(Some(status))
        }
        Err(ring::Error::NoSuchDaemon { .. } | ring::Error::DaemonDied { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn farewell(last: &ServerStatus) -> String {
    let done = last.ranks.iter().all(|rank| rank.state == "finished");
    format!(
        "the daemon `{}` (process {}) has ended{}",
        last.name,
        last.pid,
        match done {
            true => ": its stream was finished".to_owned(),
            false => format!(", last seen at {}; its log says why", place(last)),
        }
    )
}

fn rate(status: &ServerStatus) -> f64 {
    status
        .ranks
        .iter()
        .map(|rank| rank.recent.images_per_second)
        .sum()
}

fn place(status: &ServerStatus) -> String {
    let newest = status
        .ranks
        .iter()
        .filter_map(|rank| rank.epoch.zip(rank.step))
        .max();
    newest.map_or_else(
        || "its beginning".to_owned(),
        |(epoch, step)| format!("epoch {epoch}, step {step}"),
    )
}

/// Everything in lines of at most `width` letters.
fn frame(status: &ServerStatus, history: &VecDeque<f64>, width: usize) -> String {
    let mut lines = vec![format!(
        "{} {}  process {}, up {}, {}{}",
        "ddas-loader",
        status.version,
        status.pid,
        time(status.uptime_seconds),
        status.name,
        if status.draining { ", DRAINING" } else { "" },
    )];
    if let Some(rank) = status.ranks.first() {
        let done = status.ranks.iter().map(|rank| rank.published).sum::<u64>();
        lines.push(format!(
            "at {}, of {} epochs of {} steps; {} batches handed over",
            place(status),
            rank.epochs,
            rank.steps_per_epoch,
            done
        ));
    }
    let batches: f64 = status
        .ranks
        .iter()
        .map(|rank| rank.recent.batches_per_second)
        .sum();
    let overall: f64 = status
        .ranks
        .iter()
        .map(|rank| rank.overall.images_per_second)
        .sum();
    lines.push(format!(
        "{:>9.0} images/s {:>8.1} batches/s now; {overall:.0} images/s overall",
        rate(status),
        batches
    ));
    lines.push(format!("  {}", sparkline(history, width.saturating_sub(2))));
    if let Some(bytes) = status.memory.resident_bytes {
        lines.push(format!(
            "memory {}, rings {}, own {}",
            report::bytes(bytes),
            report::bytes(status.memory.ring_bytes),
            report::bytes(status.memory.private_bytes.unwrap_or(0)),
        ));
    }
    lines.push(String::new());
    stages(&mut lines, status, width);
    for rank in &status.ranks {
        lines.push(String::new());
        ring_lines(&mut lines, rank);
    }
    let cut = |line: String| line.chars().take(width).collect::<String>();
    let mut text = lines.into_iter().map(cut).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

fn stages(lines: &mut Vec<String>, status: &ServerStatus, width: usize) {
    let recent = &status.daemon["recent"];
    let seconds = |stage: &str| recent[format!("{stage}_seconds")].as_f64().unwrap_or(0.0);
    let stages = [
        ("read", "read"),
        ("decode", "decode"),
        ("augment", "augment"),
        ("write", "write"),
        ("wait", "wait for trainer"),
        ("idle", "wait for each other"),
    ];
    let all: f64 = stages.iter().map(|stage| seconds(stage.0)).sum();
    let room = width.saturating_sub(30).clamp(10, 50);
    lines.push(format!(
        "workers' time, last {:.0} s ({} threads)",
        recent["seconds"].as_f64().unwrap_or(0.0)
            + recent["unattended_seconds"].as_f64().unwrap_or(0.0),
        recent["threads"]
    ));
    for (stage, name) in stages {
        let share = seconds(stage) / all.max(1e-9);
        lines.push(format!(
            "  {name:<20}{:>4.0} % {}",
            100.0 * share,
            bar(share, room)
        ));
    }
    lines.push(format!("limit now: {}", verdict(recent)));
    let bad = &status.daemon["bad_samples"];
    if bad.as_u64().is_some_and(|bad| bad > 0) {
        lines.push(format!(
            "bad samples: {bad}, replaced {} times",
            status.daemon["substituted"]
        ));
    }
}

/// Who is the limit in a report, and what that means.
pub(crate) fn verdict(report: &serde_json::Value) -> String {
    let stage = report["limit"].as_str().unwrap_or("unknown");
    match report["limited_by"].as_str().unwrap_or("unknown") {
        "trainer" => "the trainer (batches are ready before it asks)".to_owned(),
        "storage" => "the storage (workers read most of the time)".to_owned(),
        "cpu" => format!("the CPU ({stage} takes most of the workers' time)"),
        "nobody" => "nobody (no consumer is there)".to_owned(),
        _ => "not known yet".to_owned(),
    }
}

fn ring_lines(lines: &mut Vec<String>, rank: &RankStatus) {
    let mut slots = String::new();
    for (letter, count) in [('#', rank.ready), ('+', rank.writing), ('.', rank.free)] {
        slots.extend(std::iter::repeat_n(letter, count.min(64) as usize));
    }
    let held = rank
        .held_back_seconds
        .filter(|seconds| *seconds >= 0.1)
        .map_or_else(String::new, |seconds| {
            format!(", held back for {}", time(seconds))
        });
    lines.push(format!(
        "rank {} {:<9} [{slots}] {} ready, {} being written, {} free{held}",
        rank.rank, rank.state, rank.ready, rank.writing, rank.free
    ));
    if !rank.consumers.is_empty() {
        lines.push("    process name                      acknowledged   lag    waited   waiting   holding".to_owned());
    }
    lines.extend(rank.consumers.iter().map(consumer_line));
    if rank.consumers_left_out > 0 {
        lines.push(format!(
            "    and {} more consumers",
            rank.consumers_left_out
        ));
    }
}

fn consumer_line(consumer: &ConsumerStatus) -> String {
    let pid = consumer
        .pid
        .map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    let name: String = consumer.name.chars().take(24).collect();
    let at = consumer
        .acknowledged
        .map_or_else(|| "-".to_owned(), |at| format!("{}:{}", at.epoch, at.step));
    let or_dash = |seconds: f64| match seconds > 0.0 {
        true => time(seconds),
        false => "-".to_owned(),
    };
    format!(
        "    {pid:>7} {name:<24} {at:>14} {:>5} {:>9} {:>9} {:>9}",
        consumer.behind,
        consumer.waited_seconds.map_or_else(|| "?".to_owned(), time),
        or_dash(consumer.waiting_seconds),
        or_dash(consumer.holding_seconds),
    )
}

/// `0.35 s`, `12 s`, `3:05`, `2:03:05`.
fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..10 => format!("{seconds:.2} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

fn bar(share: f64, room: usize) -> String {
    "#".repeat((share.clamp(0.0, 1.0) * room as f64).round() as usize)
}

/// The newest values, each a letter from low to high on a scale from 0 to the greatest.
fn sparkline(values: &VecDeque<f64>, room: usize) -> String {
    const LETTERS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max).max(1e-9);
    let skip = values.len().saturating_sub(room);
    let letter = |value: &f64| LETTERS[((value / most * 7.0).round() as usize).min(7)];
    values.iter().skip(skip).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bars_are_short() {
        assert_eq!(time(0.349), "0.35 s");
        assert_eq!(time(59.9), "59 s");
        assert_eq!(time(7385.0), "2:03:05");
        assert_eq!(bar(0.5, 10), "#####");
        assert_eq!(bar(f64::NAN, 10), "");
        let values = VecDeque::from([5.0, 0.0, 50.0, 100.0]);
        assert_eq!(sparkline(&values, 3), "▁▅█");
        assert_eq!(sparkline(&VecDeque::from([0.0]), 10), "▁");
    }
}
