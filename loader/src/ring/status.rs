//! What a daemon says about itself and its consumers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::figures::{Durations, Rates};
use super::protocol::StreamPosition;

/// One consumer, as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsumerStatus {
    /// Number of its connection: no other consumer of this daemon has had it.
    pub id: u64,
    /// Its process, when it is visible from the daemon.
    pub pid: Option<u32>,
    /// Its program, and the script of an interpreter; empty when it is not visible.
    pub name: String,
    /// Seconds since it joined.
    pub connected_seconds: f64,
    /// Sequence number of its first batch.
    pub first: u64,
    /// Newest batch up to which it has released all; `None` before its first.
    pub acknowledged: Option<StreamPosition>,
    /// Published batches it has not released yet, counted from its oldest: its lag.
    pub behind: u64,
    /// Seconds it has waited for batches since it joined, the present wait included; `None` when it does not say.
    pub waited_seconds: Option<f64>,
    /// Seconds it has been waiting for its next batch now; 0 while it does not.
    pub waiting_seconds: f64,
    /// Seconds since it took its newest batch, while it holds any; else 0.
    pub holding_seconds: f64,
}

/// One rank's ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankStatus {
    /// The rank.
    pub rank: u32,
    /// `waiting` (for consumers), `running`, `finished` or `failed`.
    pub state: String,
    /// Epoch of the newest batch published; `None` before the first.
    pub epoch: Option<u32>,
    /// Its step in the epoch.
    pub step: Option<u64>,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Epochs of the run.
    pub epochs: u32,
    /// Slots of the ring: `free + writing + ready`.
    pub slots: u32,
    /// Slots that could be written now.
    pub free: u64,
    /// Batches being written.
    pub writing: u64,
    /// Published batches that some consumer has not released.
    pub ready: u64,
    /// Batches published.
    pub published: u64,
    /// Samples published.
    pub samples: u64,
    /// Rates of about the last ten seconds.
    pub recent: Rates,
    /// Rates since the daemon started.
    pub overall: Rates,
    /// Seconds that the daemon has waited for a free slot. Workers may have been busy with other batches meanwhile.
    pub slot_wait_seconds: f64,
    /// Each of those waits.
    pub slot_waits: Durations,
    /// From the hand-out of a slot to its publication, for each batch.
    pub filling: Durations,
    /// Consumers admitted so far.
    pub joined: u64,
    /// Consumers that have left or died.
    pub left: u64,
    /// Consumers evicted so far.
    pub evicted: u64,
    /// Seconds that consumers have been holding back the next batch; `None` when they do not.
    pub held_back_seconds: Option<f64>,
    /// The living consumers, in order of joining.
    pub consumers: Vec<ConsumerStatus>,
    /// Consumers that are not listed, because an answer has an end.
    #[serde(default)]
    pub consumers_left_out: u64,
}

/// Memory of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Resident bytes of the process, the rings and touched parts of datasets included; `None` where unknown.
    pub resident_bytes: Option<u64>,
    /// Bytes of resident memory that belong to no file and no ring.
    pub private_bytes: Option<u64>,
    /// Bytes of all rings.
    pub ring_bytes: u64,
}

impl MemoryStatus {
    /// Of this process.
    pub(super) fn now(ring_bytes: u64) -> MemoryStatus {
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let number = line.split_whitespace().next()?.parse::<u64>().ok()?;
            number.checked_mul(1024)
        };
        MemoryStatus {
            resident_bytes: kibibytes("VmRSS:"),
            private_bytes: kibibytes("RssAnon:"),
            ring_bytes,
        }
    }
}

/// What a daemon says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Version of the shared-memory protocol.
    pub protocol: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Whether it begins no new batch, because it was told to stop.
    pub draining: bool,
    /// Its memory.
    pub memory: MemoryStatus,
    /// Its rings.
    pub ranks: Vec<RankStatus>,
    /// Whatever the status source added; `null` without one.
    pub daemon: serde_json::Value,
}

impl ServerStatus {
    /// As JSON of at most `most` bytes: with more consumers than fit, fewer of each rank are listed.
    pub(super) fn shortened(mut self, most: usize) -> serde_json::Value {
        for keep in [16, 4, 0] {
            let value = serde_json::to_value(&self).unwrap_or_default();
            if value.to_string().len() <= most {
                return value;
            }
            for rank in &mut self.ranks {
                let left_out = rank.consumers.len().saturating_sub(keep);
                rank.consumers.truncate(keep);
                rank.consumers_left_out += left_out as u64;
            }
        }
        serde_json::to_value(&self).unwrap_or_default()
    }
}

/// Something that happened to a consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerEvent {
    /// When.
    pub at: SystemTime,
    /// The rank of the ring.
    pub rank: u32,
    /// Number of the connection.
    pub id: u64,
    /// The consumer's process, when it is visible.
    pub pid: Option<u32>,
    /// Its program; may be empty.
    pub name: String,
    /// What happened.
    pub what: ConsumerChange,
}

/// What happened to a consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConsumerChange {
    /// It joined; its first batch is this one.
    Joined {
        /// Sequence number, from 1.
        first: u64,
    },
    /// It left or died.
    Left {
        /// Published batches it had not released.
        behind: u64,
        /// How long it was there.
        connected: Duration,
    },
    /// It lost its slots, because it held the ring back for too long or acknowledged what does not exist.
    Evicted,
}

/// Events that nobody has asked for yet. A log that cannot be written must not hold up a ring: they wait here, and the
/// oldest are dropped when nobody comes.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<VecDeque<ConsumerEvent>>);

impl Events {
    const MOST: usize = 1024;

    pub(super) fn push(&self, event: ConsumerEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= Self::MOST {
            events.pop_front();
        }
        events.push_back(event);
    }

    pub(super) fn take(&self) -> Vec<ConsumerEvent> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.drain(..).collect()
    }
}

/// What a process calls itself: its program, and for an interpreter the script. At most 40 characters.
pub(super) fn process_name(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    name_of(&line)
}

fn name_of(command_line: &[u8]) -> String {
    let words = command_line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty());
    let mut words = words.map(|word| String::from_utf8_lossy(word).into_owned());
    let base = |word: String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let mut name = words.next().map_or_else(String::new, base);
    if name.starts_with("python") {
        // `python -m package`, `python script.py`: what follows the flags. Code after `-c` is no name.
        match words.find(|word| !word.starts_with('-') || word == "-c") {
            Some(script) if script != "-c" => name = format!("{name} {}", base(script)),
            _ => (),
        }
    }
    let plain = name.chars().filter(|letter| !letter.is_control());
    plain.take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_called_by_its_program_and_script() {
        for (line, name) in [
            (
                &b"/usr/bin/python3\0-u\0/home/me/train.py\0--fast\0"[..],
                "python3 train.py",
            ),
            (
                b"python3.11\0-m\0package.train\0",
                "python3.11 package.train",
            ),
            (b"python3\0-c\0import ddas\0", "python3"),
            (b"/opt/ddas-loader\0consume\0x\0", "ddas-loader"),
            (b"evil\x1b[31m\nname\0", "evil[31mname"),
            (b"", ""),
        ] {
            assert_eq!(name_of(line), name);
        }
        assert_eq!(name_of(&[b'x'; 500]).len(), 40);
        assert!(!process_name(std::process::id()).is_empty());
    }

    #[test]
    fn events_wait_but_not_without_end() {
        let events = Events::default();
        for id in 0..2000 {
            events.push(ConsumerEvent {
                at: SystemTime::UNIX_EPOCH,
                rank: 0,
                id,
                pid: None,
                name: String::new(),
                what: ConsumerChange::Evicted,
            });
        }
        let taken = events.take();
        assert_eq!((taken.len(), taken[0].id), (1024, 976));
        assert!(events.take().is_empty());
    }
}
