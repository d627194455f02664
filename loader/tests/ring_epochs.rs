//! The ring within one process: consumers that wait for an epoch to begin, and mixed batches.

#[path = "ring_support/mod.rs"]
mod support;

use std::sync::atomic::AtomicBool;

use ddas_loader::ring::{Error, RingServer, ServerOptions, StartFrom, StreamPosition};
use support::{Daemon, LONG, SHORT, check, fill, mixed_stream, stream};

#[test]
fn a_late_joiner_waits_for_the_next_epoch_if_it_likes() {
    let daemon = Daemon::start(3, 1);
    let stop = AtomicBool::new(false);
    let mut writer = daemon.server.writer(0).unwrap();
    let mut write = |sequence| fill(writer.acquire(&stop, LONG).unwrap().unwrap(), sequence);
    // Nothing is lost yet: the whole first epoch is still to come.
    let mut first = daemon.connect_from(0, StartFrom::NextEpoch).unwrap();
    for sequence in 1..=5 {
        write(sequence);
        check(&first.receive(LONG).unwrap().unwrap(), sequence);
    }
    let mut patient = daemon.connect_from(0, StartFrom::NextEpoch).unwrap();
    let mut late = daemon.connect();
    assert_eq!((patient.ahead(), late.ahead()), (5, 0));
    assert!(matches!(
        patient.receive(SHORT),
        Err(Error::TimedOut { .. })
    ));
    for sequence in 6..=12 {
        write(sequence);
        check(&first.receive(LONG).unwrap().unwrap(), sequence);
        check(&late.receive(LONG).unwrap().unwrap(), sequence);
    }
    assert_eq!(patient.ahead(), 0);
    (11..=12).for_each(|sequence| check(&patient.receive(LONG).unwrap().unwrap(), sequence));
    // From batch 11 on it is asked like everybody else.
    for sequence in 13..=15 {
        write(sequence);
        check(&first.receive(LONG).unwrap().unwrap(), sequence);
        check(&late.receive(LONG).unwrap().unwrap(), sequence);
    }
    assert!(
        writer.acquire(&stop, SHORT).unwrap().is_none(),
        "batch 13 is not read by all"
    );
    (13..=15).for_each(|sequence| check(&patient.receive(LONG).unwrap().unwrap(), sequence));
    assert!(writer.acquire(&stop, LONG).unwrap().is_some());
}

#[test]
fn there_must_be_an_epoch_to_wait_for() {
    let (mut infos, shape) = stream(2, 1);
    // A run of three epochs, entered at step 4 of the second.
    infos[0].epochs = 3;
    infos[0].start = StreamPosition { epoch: 1, step: 4 };
    let daemon = Daemon::serving((infos, shape), ServerOptions::default());
    let patient = daemon.connect_from(0, StartFrom::NextEpoch).unwrap();
    assert_eq!(patient.ahead(), 6);
    drop(patient);
    let mut reader = daemon.connect();
    let writer = daemon.write(1..=9);
    (1..=9).for_each(|sequence| check(&reader.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    match daemon.connect_from(0, StartFrom::NextEpoch) {
        Err(Error::Refused { reason }) => assert_eq!(
            reason,
            "there is no further epoch to wait for: the stream is at step 3 of epoch 2, the last of 3"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mixed_batches_carry_partners_and_weights() {
    let daemon = Daemon::serving(mixed_stream(3, 1, true), ServerOptions::default());
    let writer = daemon.write(1..=20);
    let mut consumer = daemon.connect();
    assert!(consumer.info().mixes);
    for sequence in 1..=20 {
        let batch = consumer.receive(LONG).unwrap().unwrap();
        check(&batch, sequence);
        let addresses = [
            batch.mixed_labels().unwrap().as_ptr().addr(),
            batch.weights().unwrap().as_ptr().addr(),
        ];
        assert!(addresses.iter().all(|address| address % 64 == 0));
    }
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
    // The stream and its ring must agree on it.
    let (infos, _) = mixed_stream(3, 1, true);
    let (_, shape) = stream(3, 1);
    let refused = RingServer::start(
        "other",
        infos,
        shape,
        ServerOptions {
            dir: Some(daemon.dir.path().to_owned()),
            ..ServerOptions::default()
        },
    );
    assert!(matches!(refused, Err(Error::BadShape { .. })));
}
