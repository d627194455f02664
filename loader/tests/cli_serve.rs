//! `serve` and `consume` end to end: the same bytes whatever the machine does, every sample once, kills survived.

mod cli_support;

use std::time::Duration;

use cli_support::{Sandbox, pixels};
use ddas_loader::ring::{ConnectOptions, Consumer, Error};
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn hashes_do_not_depend_on_threads_slots_or_the_run() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 150);
    let policy = sandbox.policy("policy.json");
    let serve = |more: &str| {
        let (dataset, policy) = (dataset.display(), policy.display());
        format!(
            "{dataset} --recipe cifar --policy {policy} --epochs 3 --batch-size 16 --seed 5 {more}"
        )
    };
    let first = sandbox.hashes("reference", &serve("--threads 1"));
    // Three epochs of ten batches (the last one short) and a line for each epoch.
    assert_eq!(first.len(), 33);
    assert!(
        first[10].starts_with("0 all ") && first[32].starts_with("2 all "),
        "{first:#?}"
    );
    let distinct: std::collections::BTreeSet<_> =
        first.iter().map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(distinct.len(), 33, "every batch differs");
    for (name, more) in [
        ("again", "--threads 1"),
        ("two-threads", "--threads 2 --slots 2"),
        ("four-threads", "--threads 4"),
        ("many-slots", "--threads 3 --slots 11"),
    ] {
        assert_eq!(sandbox.hashes(name, &serve(more)), first, "{more}");
    }
    // Entered in the middle of epoch 1: the rest of that epoch, then epoch 2 as before.
    let late = sandbox.hashes("late", &serve("--threads 2 --start 1:7"));
    let mut expected = first[11 + 7..21].to_vec();
    expected.extend_from_slice(&first[22..]);
    assert_eq!(late, expected);
    // Another seed is another run.
    let other = sandbox.hashes("other", &serve("--seed 6").replace("--seed 5 ", ""));
    assert!(
        other
            .iter()
            .zip(&first)
            .all(|(other, first)| other != first)
    );
}

#[test]
fn every_sample_arrives_once_an_epoch_at_any_world_size() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 101);
    let mut reference: Option<Vec<Vec<u64>>> = None;
    for world_size in [1u32, 2, 3, 4] {
        let name = format!("world-{world_size}");
        let daemon = sandbox.serve(&format!(
            "{} --name {name} --recipe cifar --epochs 2 --batch-size 12 --world-size {world_size} --dtype u8 --layout nhwc",
            dataset.display()
        ));
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                let consumer = sandbox.connect(&name, rank);
                std::thread::spawn(move || indices(consumer))
            })
            .collect();
        let ranks: Vec<Vec<(u32, u64, Vec<u64>)>> =
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        daemon.end().succeeded();
        // Laid together in rank order, the parts of a step are the step of the single-process run.
        let mut steps = Vec::new();
        for step in 0..ranks[0].len() {
            let place = (ranks[0][step].0, ranks[0][step].1);
            assert!(
                ranks
                    .iter()
                    .all(|rank| (rank[step].0, rank[step].1) == place)
            );
            steps.push(
                ranks
                    .iter()
                    .flat_map(|rank| rank[step].2.iter().copied())
                    .collect::<Vec<u64>>(),
            );
        }
        assert_eq!(steps.len(), 18);
        for epoch in steps.chunks(9) {
            let mut all: Vec<u64> = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..101).collect::<Vec<_>>());
        }
        assert_ne!(
            steps[..9],
            steps[9..],
            "the order changes from epoch to epoch"
        );
        assert_eq!(*reference.get_or_insert_with(|| steps.clone()), steps);
    }
}

/// Epoch, step and indices of every batch, checking that labels belong to them.
fn indices(mut consumer: Consumer) -> Vec<(u32, u64, Vec<u64>)> {
    let mut batches = Vec::new();
    while let Some(batch) = consumer.receive(LONG).unwrap() {
        for (label, index) in batch.labels().iter().zip(batch.indices()) {
            assert_eq!(*label, (index % 10) as i64);
        }
        assert_eq!(batch.images().len(), batch.samples() * 32 * 32 * 3);
        batches.push((batch.epoch(), batch.step(), batch.indices().to_vec()));
    }
    batches
}

/// The recipe changes pixels, but a sample's own pixels must still be recognisable: no mixed-up places in a batch.
#[test]
fn images_labels_and_indices_belong_together() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 64);
    let daemon = sandbox.serve(&format!(
        "{} --name places --recipe cifar --epochs 1 --batch-size 16 --threads 3 --dtype u8 --layout nhwc",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("places", 0);
    while let Some(batch) = consumer.receive(LONG).unwrap() {
        for (image, index) in batch
            .images()
            .chunks_exact(32 * 32 * 3)
            .zip(batch.indices())
        {
            let original = pixels(*index);
            // The crop shifts by up to four pixels and a flip may mirror: look for a row's pixels in the original.
            let found = image.chunks_exact(32 * 3).any(|row| {
                let piece: Vec<[u8; 3]> = row
                    .chunks_exact(3)
                    .skip(6)
                    .take(3)
                    .map(|pixel| [pixel[0], pixel[1], pixel[2]])
                    .collect();
                let mirrored: Vec<u8> = piece.iter().rev().flatten().copied().collect();
                let piece: Vec<u8> = piece.concat();
                piece.iter().any(|&value| value != 0)
                    && original
                        .windows(9)
                        .any(|window| window == piece || window == mirrored)
            });
            assert!(found, "sample {index} holds other pixels");
        }
    }
    daemon.end().succeeded();
}

#[test]
fn a_killed_consumer_does_not_stop_another() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 160);
    let serve = |more: &str| {
        format!(
            "{} --recipe cifar --epochs 4 --batch-size 8 {more}",
            dataset.display()
        )
    };
    let expected = sandbox.hashes("reference", &serve(""));
    let daemon = sandbox.serve(&serve("--name shared --consumers 2 --slots 3"));
    let mut victim = sandbox.start("consume shared --hash --delay 100");
    let survivor = sandbox.start("consume shared --hash");
    // Both have joined; the victim has printed its first batch and now holds it for a long time.
    survivor.stdout_line("0 0 ");
    victim.stdout_line("0 0 ");
    victim.kill();
    let hashes = survivor.end().succeeded();
    assert_eq!(hashes.lines().collect::<Vec<_>>(), expected);
    let served = daemon.end();
    assert!(
        served.stderr.contains("done: 80 batches, 640 images"),
        "{}",
        served.stderr
    );
    served.succeeded();
}

#[test]
fn consumers_of_a_killed_daemon_get_an_error_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 160);
    let serve = format!(
        "{} --name mortal --recipe cifar --epochs 1000 --batch-size 8",
        dataset.display()
    );
    let before = shared_memory_names();
    let mut daemon = sandbox.serve(&serve);
    let mut consumer = sandbox.connect("mortal", 0);
    let held = consumer.receive(LONG).unwrap().unwrap();
    let other = sandbox.start("consume mortal --hash");
    daemon.kill();
    daemon.end();
    let error = loop {
        match consumer.receive(LONG) {
            Ok(batch) => assert!(
                batch.is_some(),
                "a stream that was cut off must not look finished"
            ),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DaemonDied { .. }), "{error}");
    drop(held);
    other.end().failed(1, &["daemon"]);
    let left: Vec<_> = shared_memory_names()
        .into_iter()
        .filter(|name| !before.contains(name) && name.contains("ddas"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // The name is free again, though the socket's file is still there.
    let again = sandbox.serve(&serve);
    again.signal(Signal::TERM);
    let again = again.end();
    assert!(
        again.stderr.contains("removed the socket"),
        "{}",
        again.stderr
    );
    again.succeeded();
}

fn shared_memory_names() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_daemon_without_consumers_waits_and_stops_on_a_signal() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 5);
    for signal in [Signal::TERM, Signal::INT] {
        // Smaller than a batch: everything is in the ring long before anybody asks.
        let daemon = sandbox.serve(&format!(
            "{} --name idle --recipe cifar --epochs 2 --batch-size 64",
            dataset.display()
        ));
        let status: serde_json::Value =
            serde_json::from_str(&sandbox.run("status idle --json").succeeded()).unwrap();
        assert_eq!(status["name"], "idle");
        assert_eq!(status["ranks"][0]["consumers"].as_array().unwrap().len(), 0);
        daemon.signal(signal);
        daemon.end().succeeded();
        sandbox
            .run("consume idle")
            .failed(1, &["no daemon named `idle`"]);
    }
}

/// A rank's stream ends with its own last batch, whether or not other ranks have been read.
#[test]
fn ranks_may_be_read_one_after_the_other() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 60);
    let daemon = sandbox.serve(&format!(
        "{} --name ranks --recipe cifar --epochs 3 --batch-size 12 --world-size 3 --slots 2",
        dataset.display()
    ));
    for rank in [2, 0, 1] {
        let summary = sandbox
            .run(&format!("consume ranks --rank {rank} --json"))
            .succeeded();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(
            (&summary["batches"], &summary["samples"]),
            (&15.into(), &60.into())
        );
    }
    daemon.end().succeeded();
}

/// A trainer that exits with the last batch in its hands has received everything: the grace period, longer than the
/// watchdog here, is not for it.
#[test]
fn the_daemon_ends_when_its_trainer_leaves_with_the_last_batch() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 80);
    let daemon = sandbox.serve(&format!(
        "{} --name held --recipe cifar --epochs 1 --batch-size 8 --grace 1000",
        dataset.display()
    ));
    let mut trainer = sandbox.start("consume held --hash --delay 0.05");
    trainer.stdout_line("0 9 ");
    trainer.kill();
    let served = daemon.end();
    assert!(
        served.stderr.contains("done: 10 batches"),
        "{}",
        served.stderr
    );
    served.succeeded();
}

#[test]
fn a_late_consumer_of_a_small_dataset_gets_everything() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 5);
    let daemon = sandbox.serve(&format!(
        "{} --name small --recipe cifar --epochs 2 --batch-size 64",
        dataset.display()
    ));
    let summary = sandbox.run("consume small --json").succeeded();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (
            &summary["batches"],
            &summary["samples"],
            &summary["finished"]
        ),
        (&2.into(), &10.into(), &true.into())
    );
    let served = daemon.end();
    assert!(
        served.stderr.contains("epoch 1: 5 images in "),
        "{}",
        served.stderr
    );
    served.succeeded();
}

#[test]
fn the_last_batch_is_short_or_left_out() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 21);
    for (last, batches, samples) in [("pad", 6, 42), ("drop", 4, 32)] {
        let daemon = sandbox.serve(&format!(
            "{} --name last-{last} --recipe cifar --epochs 2 --batch-size 8 --last {last}",
            dataset.display()
        ));
        let summary = sandbox
            .run(&format!("consume last-{last} --json"))
            .succeeded();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(
            (&summary["batches"], &summary["samples"]),
            (&batches.into(), &samples.into())
        );
        daemon.end().succeeded();
    }
}

#[test]
fn a_stopped_daemon_lets_its_consumer_take_what_is_ready() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 80);
    let daemon = sandbox.serve(&format!(
        "{} --name brief --recipe cifar --epochs 100000 --batch-size 8",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("brief", 0);
    let mut received = 0;
    for _ in 0..3 {
        assert!(consumer.receive(LONG).unwrap().is_some());
        received += 1;
    }
    daemon.signal(Signal::TERM);
    while consumer.receive(LONG).unwrap().is_some() {
        received += 1;
    }
    let served = daemon.end();
    assert!(
        served
            .stderr
            .contains(&format!("stopped by a signal: {received} batches")),
        "{received}: {}",
        served.stderr
    );
    served.succeeded();
}

#[test]
fn consumers_may_wait_for_the_daemon_to_start() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 16);
    std::fs::create_dir(sandbox.runtime_dir()).unwrap();
    let options = ConnectOptions {
        timeout: LONG,
        dir: Some(sandbox.runtime_dir()),
        ..ConnectOptions::default()
    };
    let early = std::thread::spawn(move || Consumer::connect("later", options).map(indices));
    let daemon = sandbox.serve(&format!(
        "{} --name later --recipe cifar --epochs 1 --batch-size 8 --dtype u8",
        dataset.display()
    ));
    assert_eq!(early.join().unwrap().unwrap().len(), 2);
    daemon.end().succeeded();
}

/// A recipe with `[mix]` from file to consumer: partners' labels and weights come along, the hash covers them, and
/// neither threads nor ranks change a byte.
#[test]
fn mixed_batches_are_served_with_partners_and_weights() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 75);
    let plain = sandbox.run("recipe show cifar").succeeded();
    let mixed = plain.clone()
        + "\n[mix]\nmixup = { alpha = 0.4 }\ncutmix = { alpha = 1.0 }\nper = \"pair\"\n";
    std::fs::write(sandbox.path("mixed.toml"), mixed).unwrap();
    let recipe = sandbox.path("mixed.toml");
    let serve = |more: &str| {
        format!(
            "{} --recipe {} --epochs 2 --batch-size 16 {more}",
            dataset.display(),
            recipe.display()
        )
    };
    let reference = sandbox.hashes("reference", &serve("--threads 1 --slots 2"));
    assert_eq!(reference.len(), 12);
    assert_eq!(
        sandbox.hashes("others", &serve("--threads 3 --slots 9")),
        reference
    );
    assert_eq!(
        sandbox.hashes("late", &serve("--start 1:2"))[..],
        reference[6 + 2..11]
    );

    type Part = (Vec<u8>, Vec<i64>, Vec<i64>, Vec<u32>);
    let mut whole: Option<Vec<Part>> = None;
    for world_size in [1, 2, 4] {
        let name = format!("mixed-{world_size}");
        let daemon = sandbox.serve(&serve(&format!(
            "--name {name} --world-size {world_size} --dtype u8"
        )));
        let mut steps = vec![Part::default(); 10];
        for rank in 0..world_size {
            let mut consumer = sandbox.connect(&name, rank);
            assert!(consumer.info().mixes);
            for step in &mut steps {
                let batch = consumer.receive(LONG).unwrap().unwrap();
                step.0.extend(batch.images());
                step.1.extend(batch.labels());
                step.2.extend(batch.mixed_labels().unwrap());
                step.3.extend(
                    batch
                        .weights()
                        .unwrap()
                        .iter()
                        .map(|weight| weight.to_bits()),
                );
            }
        }
        daemon.end().succeeded();
        assert!(*whole.get_or_insert_with(|| steps.clone()) == steps);
    }
    for (step, (_, labels, partners, weights)) in whole.unwrap().iter().enumerate() {
        // 75 samples: the last one of an epoch is alone.
        for at in 0..labels.len() {
            let partner = if at ^ 1 < labels.len() { at ^ 1 } else { at };
            assert_eq!(partners[at], labels[partner], "step {step}, sample {at}");
            let weight = f32::from_bits(weights[at]);
            assert!((0.0..=1.0).contains(&weight));
            assert_eq!(weights[at], weights[partner]);
            assert!(partner != at || weight == 1.0);
        }
    }

    for (arguments, parts) in [
        (
            serve("--name odd --world-size 16"),
            "legal world sizes: 1, 2, 4, 8",
        ),
        (
            serve("--name odd").replace("--batch-size 16", "--batch-size 15"),
            "take an even batch size",
        ),
    ] {
        sandbox
            .run(&format!("serve {arguments}"))
            .failed(2, &["two by two", parts]);
    }
}

#[test]
fn a_late_consumer_may_wait_for_the_next_epoch() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 40);
    let daemon = sandbox.serve(&format!(
        "{} --name epochs --recipe cifar --epochs 4 --batch-size 8 --slots 2",
        dataset.display()
    ));
    let mut first = sandbox.connect("epochs", 0);
    for _ in 0..8 {
        assert!(first.receive(LONG).unwrap().is_some());
    }
    // Batches 6 to 8 of 5 an epoch are gone or being read: epoch 2 is the next whole one.
    let late = sandbox.start("consume epochs --from next-epoch --hash");
    while sandbox.status("epochs")["ranks"][0]["consumers"]
        .as_array()
        .unwrap()
        .len()
        < 2
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    while first.receive(LONG).unwrap().is_some() {}
    drop(first);
    let hashes = late.end().succeeded();
    let places: Vec<&str> = hashes
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(places.len(), 2 * 6, "{hashes}");
    assert_eq!(
        (places[0], places[5], places[11]),
        ("2 0", "2 all", "3 all")
    );
    daemon.end().succeeded();
}
