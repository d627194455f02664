//! `serve` killed again and again: a run pieced together from what trainers got is the run without kills.

mod cli_support;

use std::time::{Duration, Instant};

use cli_support::Sandbox;
use ddas_loader::ring::{ConnectOptions, Consumer, Error, ReadBatch};
use xxhash_rust::xxh3::xxh3_64;

const LONG: Duration = Duration::from_secs(60);
const STEPS: u64 = 10;
const EPOCHS: u32 = 150;
const KILLS: u64 = 50;

/// Everything of a batch in one number.
fn digest(batch: &ReadBatch) -> u64 {
    let numbers = batch.labels().iter().map(|&label| label as u64);
    let mut bytes = batch.images().to_vec();
    for number in numbers.chain(batch.indices().iter().copied()) {
        bytes.extend(number.to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// Takes batches from `due` on until the end of the run (true) or the daemon's death (false).
fn take(mut consumer: Consumer, pace: Duration, taken: &mut Vec<u64>) -> bool {
    loop {
        match consumer.receive(LONG) {
            Ok(Some(batch)) => {
                let due = taken.len() as u64;
                assert_eq!(
                    (u64::from(batch.epoch()), batch.step()),
                    (due / STEPS, due % STEPS)
                );
                let digest = digest(&batch);
                batch.validate().unwrap();
                taken.push(digest);
                std::thread::sleep(pace);
            }
            Ok(None) => return true,
            Err(Error::DaemonDied { .. }) => return false,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Killed at random moments, from before it has taken its name to in the middle of the stream, with another number of
/// threads and slots each time; always started again at the step due.
#[test]
fn a_run_of_killed_daemons_is_the_run_without_kills() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 75);
    let policy = sandbox.policy("policy.json");
    let arguments = format!(
        "{} --recipe cifar --policy {} --epochs {EPOCHS} --batch-size 8 --seed 5",
        dataset.display(),
        policy.display()
    );
    let daemon = sandbox.serve(&format!("{arguments} --name whole --threads 1 --slots 2"));
    let mut expected = Vec::new();
    assert!(take(
        sandbox.connect("whole", 0),
        Duration::ZERO,
        &mut expected
    ));
    assert_eq!(expected.len() as u64, u64::from(EPOCHS) * STEPS);
    daemon.end().succeeded();

    let mut taken = Vec::new();
    let mut state = 0x5eed_u64;
    let mut dice = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let (mut deaths, mut late) = (0, Vec::new());
    for round in 0.. {
        let due = taken.len() as u64;
        let (threads, slots) = ([1, 2, 3, 8][round % 4], 2 + round % 15);
        let mut daemon = sandbox.start(&format!(
            "serve {arguments} --name killed --threads {threads} --slots {slots} --start {}:{}",
            due / STEPS,
            due % STEPS
        ));
        let options = ConnectOptions {
            timeout: LONG,
            dir: Some(sandbox.runtime_dir()),
            ..ConnectOptions::default()
        };
        if deaths == KILLS {
            let consumer = Consumer::connect("killed", options).unwrap();
            assert!(take(consumer, Duration::ZERO, &mut taken));
            daemon.end().succeeded();
            break;
        }
        deaths += 1;
        if dice(5) == 0 {
            // Before anybody has joined.
            std::thread::sleep(Duration::from_micros(dice(30_000)));
            daemon.kill();
            daemon.end();
            continue;
        }
        let consumer = Consumer::connect("killed", options).unwrap();
        let pause = Duration::from_micros(dice(60_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            daemon.kill();
            let killed = Instant::now();
            daemon.end();
            killed
        });
        assert!(!take(consumer, Duration::from_millis(2), &mut taken));
        let reported = Instant::now();
        let killed = killer.join().unwrap();
        late.push(reported.saturating_duration_since(killed));
    }
    assert!(taken == expected);
    // The socket and lock of the last daemon went with it, and nothing lies in shared memory.
    let left = std::fs::read_dir(sandbox.runtime_dir()).unwrap().count();
    assert_eq!(left, 0);
    assert!(!in_dev_shm());
    late.sort_unstable();
    println!(
        "{deaths} kills; deaths reported to the consumer within {:?} (median {:?})",
        late[late.len() - 1],
        late[late.len() / 2]
    );
    // The contract is 500 ms; single rounds may be held up by whatever else runs on the machine.
    assert!(
        late[late.len() * 9 / 10] < Duration::from_millis(500),
        "{late:?}"
    );
}

fn in_dev_shm() -> bool {
    let entries = std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("ddas"))
}

/// Bytes in use where `/dev/shm` is; `None` where there is none.
fn dev_shm_used() -> Option<u64> {
    let stat = rustix::fs::statvfs("/dev/shm").ok()?;
    Some((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// A ring takes nothing of `/dev/shm`, which containers limit to 64 MiB: its size does not matter.
#[test]
fn a_large_ring_takes_nothing_of_dev_shm() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 64);
    let before = dev_shm_used();
    // 171 slots of 64 samples of 3 x 32 x 32 floats: 128 MiB.
    let daemon = sandbox.serve(&format!(
        "{} --name large --recipe cifar --epochs 400 --batch-size 64 --slots 171 --threads 2",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("large", 0);
    for _ in 0..180 {
        assert!(consumer.receive(LONG).unwrap().is_some());
    }
    let grown = dev_shm_used()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before));
    assert!(grown.is_none_or(|grown| grown < 16 << 20), "{grown:?}");
    drop(daemon);
}
