//! The ring within one process: order, prefill, late joiners, ends and refusals.

#[path = "ring_support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddas_loader::ring::{
    BatchMeta, ConnectOptions, Consumer, Error, RingServer, ServerOptions, query_status,
};
use support::{Daemon, Dice, LONG, SHORT, byte, check, fill};

#[test]
fn every_batch_arrives_once_in_order_and_intact() {
    let daemon = Daemon::start(3, 1);
    let writer = daemon.write(1..=200);
    let mut consumer = daemon.connect();
    for sequence in 1..=200 {
        let batch = consumer.receive(LONG).unwrap().unwrap();
        check(&batch, sequence);
    }
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
    assert!(consumer.receive(LONG).unwrap().is_none());
    assert!(consumer.receive(LONG).unwrap().is_none());
}

#[test]
fn batches_carry_their_description() {
    let daemon = Daemon::start(2, 1);
    let mut writer = daemon.server.writer(0).unwrap();
    let mut slot = writer
        .acquire(&AtomicBool::new(false), LONG)
        .unwrap()
        .unwrap();
    assert_eq!((slot.capacity(), slot.images_mut().len()), (4, 48));
    slot.images_mut()
        .copy_from_slice(&std::array::from_fn::<u8, 48, _>(|at| at as u8));
    slot.labels_mut().copy_from_slice(&[-1, 0, 1, i64::MAX]);
    slot.indices_mut().copy_from_slice(&[9, 8, 7, u64::MAX]);
    let meta = BatchMeta {
        epoch: 3,
        step: 1 << 40,
        samples: 3,
        snapshot: Some(5),
        last_of_epoch: true,
    };
    slot.publish(meta).unwrap();

    let mut consumer = daemon.connect();
    let batch = consumer.receive(LONG).unwrap().unwrap();
    assert_eq!(
        (batch.epoch(), batch.step(), batch.samples()),
        (3, 1 << 40, 3)
    );
    assert_eq!(
        (batch.snapshot(), batch.last_of_epoch(), batch.shape()),
        (Some(5), true, [3, 2, 2, 3])
    );
    assert_eq!(
        batch.images(),
        std::array::from_fn::<u8, 36, _>(|at| at as u8)
    );
    assert_eq!(
        (batch.labels(), batch.indices()),
        (&[-1, 0, 1][..], &[9, 8, 7][..])
    );
    let addresses = [
        batch.images().as_ptr().addr(),
        batch.labels().as_ptr().addr(),
        batch.indices().as_ptr().addr(),
    ];
    assert!(
        addresses.iter().all(|address| address % 64 == 0),
        "{addresses:?}"
    );
    batch.validate().unwrap();
    assert_eq!(consumer.info().daemon_pid, std::process::id());
    assert_eq!(consumer.info().slots, 2);
}

#[test]
fn threads_fill_parts_of_one_slot_at_the_same_time() {
    let daemon = Daemon::start(2, 1);
    let mut writer = daemon.server.writer(0).unwrap();
    let mut slot = writer
        .acquire(&AtomicBool::new(false), LONG)
        .unwrap()
        .unwrap();
    std::thread::scope(|scope| {
        for (position, image) in slot.images_mut().chunks_exact_mut(12).enumerate() {
            scope.spawn(move || image.fill(position as u8));
        }
    });
    let meta = BatchMeta {
        epoch: 0,
        step: 0,
        samples: 4,
        snapshot: None,
        last_of_epoch: false,
    };
    slot.publish(meta).unwrap();
    let mut consumer = daemon.connect();
    let batch = consumer.receive(LONG).unwrap().unwrap();
    assert_eq!(
        batch.images(),
        [[0_u8; 12], [1; 12], [2; 12], [3; 12]].concat()
    );
    assert_eq!((batch.snapshot(), batch.last_of_epoch()), (None, false));
}

#[test]
fn only_a_ring_full_is_written_before_all_consumers_have_joined() {
    let daemon = Daemon::start(3, 2);
    let stop = AtomicBool::new(false);
    let mut writer = daemon.server.writer(0).unwrap();
    (1..=3).for_each(|sequence| fill(writer.acquire(&stop, LONG).unwrap().unwrap(), sequence));
    assert!(writer.acquire(&stop, SHORT).unwrap().is_none());
    let mut one = daemon.connect();
    (1..=3).for_each(|sequence| check(&one.receive(LONG).unwrap().unwrap(), sequence));
    assert!(
        writer.acquire(&stop, SHORT).unwrap().is_none(),
        "the second has not joined"
    );
    let mut two = daemon.connect();
    check(&two.receive(LONG).unwrap().unwrap(), 1);
    fill(writer.acquire(&stop, LONG).unwrap().unwrap(), 4);
    check(&one.receive(LONG).unwrap().unwrap(), 4);
    (2..=4).for_each(|sequence| check(&two.receive(LONG).unwrap().unwrap(), sequence));
    // Batch 1 is overwritten: the third joins at the next batch.
    let mut three = daemon.connect();
    fill(writer.acquire(&stop, LONG).unwrap().unwrap(), 5);
    for consumer in [&mut one, &mut two, &mut three] {
        check(&consumer.receive(LONG).unwrap().unwrap(), 5);
    }
}

#[test]
fn a_newcomer_continues_for_the_one_that_left() {
    let daemon = Daemon::start(4, 1);
    let writer = daemon.write(1..=20);
    let mut first = daemon.connect();
    for sequence in 1..=9 {
        check(&first.receive(LONG).unwrap().unwrap(), sequence);
    }
    let held = first.receive(LONG).unwrap().unwrap();
    check(&first.receive(LONG).unwrap().unwrap(), 11);
    drop(first);
    check(&held, 10); // a batch outlives its consumer, and keeps its slot
    drop(held);
    let mut second = daemon.connect_when_alone();
    (12..=20).for_each(|sequence| check(&second.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
}

#[test]
fn holding_the_slot_that_is_needed_is_an_error_at_once() {
    let daemon = Daemon::start(3, 1);
    let writer = daemon.write(1..=6);
    let mut consumer = daemon.connect();
    let held: Vec<_> = (0..3)
        .map(|_| consumer.receive(LONG).unwrap().unwrap())
        .collect();
    match consumer.receive(LONG) {
        Err(Error::HoldsAllSlots { held: 3, slots: 3 }) => {}
        other => panic!("{other:?}"),
    }
    // Holding only the oldest blocks just as surely.
    let mut held = held.into_iter();
    let oldest = held.next();
    held.for_each(drop);
    assert!(matches!(
        consumer.receive(LONG),
        Err(Error::HoldsAllSlots { held: 1, slots: 3 })
    ));
    drop(oldest);
    (4..=6).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
}

#[test]
fn a_consumer_after_the_end_gets_the_end() {
    let daemon = Daemon::start(2, 1);
    let writer = daemon.write(1..=5);
    let mut consumer = daemon.connect();
    (1..=5).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
    assert!(daemon.connect().receive(LONG).unwrap().is_none());
    // The ending outlives the daemon.
    drop(daemon);
    assert!(consumer.receive(LONG).unwrap().is_none());
}

#[test]
fn finishing_waits_for_batches_not_yet_read() {
    let daemon = Daemon::start(4, 1);
    daemon.write(1..=3).join().unwrap();
    assert!(!daemon.server.finish(SHORT), "nobody has joined yet");
    let mut consumer = daemon.connect();
    check(&consumer.receive(LONG).unwrap().unwrap(), 1);
    assert!(!daemon.server.finish(SHORT));
    (2..=3).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    assert!(daemon.server.finish(LONG));
    assert!(consumer.receive(LONG).unwrap().is_none());
    let mut writer = daemon.server.writer(0).unwrap();
    assert!(matches!(
        writer.acquire(&AtomicBool::new(false), SHORT),
        Err(Error::Closed)
    ));
}

#[test]
fn an_abort_reaches_consumers_after_the_good_batches() {
    let daemon = Daemon::start(4, 1);
    daemon.write(1..=2).join().unwrap();
    let mut consumer = daemon.connect();
    let long = "sample 17 of toy.lmdb is damaged: é".repeat(100);
    daemon.server.abort(&long);
    (1..=2).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    match consumer.receive(LONG) {
        Err(Error::Failed { message }) => {
            assert!(
                message.len() > 1500 && long.starts_with(&message),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waiting_consumer_hears_of_an_end_and_of_a_vanished_daemon() {
    for finish in [true, false] {
        let daemon = Daemon::start(2, 1);
        let mut consumer = daemon.connect();
        let waiting =
            std::thread::spawn(move || consumer.receive(LONG).map(|batch| batch.is_none()));
        std::thread::sleep(Duration::from_millis(50));
        if finish {
            daemon.server.finish(Duration::ZERO);
        }
        drop(daemon);
        match (finish, waiting.join().unwrap()) {
            (true, Ok(true)) => {}
            (false, Err(Error::DaemonDied { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn waiting_ends_with_the_time_or_the_stop_flag() {
    let daemon = Daemon::start(2, 1);
    let mut consumer = daemon.connect();
    assert!(matches!(
        consumer.receive(SHORT),
        Err(Error::TimedOut { .. })
    ));
    daemon.write(1..=2).join().unwrap();
    let stop = AtomicBool::new(false);
    let mut writer = daemon.server.writer(0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(writer.acquire(&stop, LONG).unwrap().is_none());
    });
}

#[test]
fn a_slot_given_back_is_filled_again_unless_later_ones_are_out() {
    let daemon = Daemon::start(3, 1);
    let stop = AtomicBool::new(false);
    let mut writer = daemon.server.writer(0).unwrap();
    drop(writer.acquire(&stop, LONG).unwrap().unwrap());
    let one = writer.acquire(&stop, LONG).unwrap().unwrap();
    assert_eq!(one.sequence(), 1);
    let two = writer.acquire(&stop, LONG).unwrap().unwrap();
    fill(two, 2); // published early: waits for the first
    let mut consumer = daemon.connect();
    assert!(matches!(
        consumer.receive(SHORT),
        Err(Error::TimedOut { .. })
    ));
    drop(one);
    assert!(matches!(
        writer.acquire(&stop, LONG),
        Err(Error::Abandoned { sequence: 1 })
    ));
}

#[test]
fn ranks_have_rings_of_their_own() {
    let daemon = Daemon::with_ranks(2, 2, ServerOptions::default());
    let stop = AtomicBool::new(false);
    for rank in [0, 1] {
        let slot = daemon
            .server
            .writer(rank)
            .unwrap()
            .acquire(&stop, LONG)
            .unwrap()
            .unwrap();
        let sequence = slot.sequence();
        fill(slot, sequence + 100 * u64::from(rank));
    }
    for rank in [1, 0] {
        let mut consumer = daemon.connect_rank(rank).unwrap();
        assert_eq!(consumer.info().rank, rank);
        check(
            &consumer.receive(LONG).unwrap().unwrap(),
            1 + 100 * u64::from(rank),
        );
    }
    match daemon.connect_rank(2) {
        Err(Error::Refused { reason }) => assert!(reason.contains("no rank 2"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(daemon.server.writer(2).is_err());
}

#[test]
fn a_held_name_an_unknown_name_and_impossible_rings_are_refused() {
    let daemon = Daemon::start(2, 1);
    let dir = Some(daemon.dir.path().to_owned());
    let options = ServerOptions {
        dir: dir.clone(),
        ..ServerOptions::default()
    };
    let (mut infos, shape) = support::stream(2, 1);
    match RingServer::start("toy", infos.clone(), shape, options.clone()) {
        Err(Error::NameHeld { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    let unknown = ConnectOptions {
        dir: dir.clone(),
        ..ConnectOptions::default()
    };
    match Consumer::connect("train", unknown) {
        Err(Error::NoSuchDaemon {
            name,
            looked_in,
            running,
        }) => {
            assert_eq!((name.as_str(), running), ("train", vec!["toy".to_owned()]));
            assert_eq!(Some(looked_in), dir);
        }
        other => panic!("{other:?}"),
    }
    let mut huge = shape;
    huge.slots = 1024;
    huge.batch_size = 1 << 24;
    infos[0].batch_size = 1 << 24;
    match RingServer::start("huge", infos.clone(), huge, options.clone()) {
        Err(Error::NoMemory {
            needed, available, ..
        }) => assert!(needed > available),
        other => panic!("{other:?}"),
    }
    infos[0].batch_size = 4;
    infos[0].shape = [3, 2, 3];
    let odd = RingServer::start("odd", infos, shape, options).unwrap_err();
    assert!(
        matches!(&odd, Error::BadShape { reason } if reason.contains("[3, 2, 3]")),
        "{odd}"
    );
}

#[test]
fn the_status_names_consumers_and_how_far_they_are() {
    let daemon = Daemon::start(4, 1);
    daemon
        .server
        .set_status_source(|| serde_json::json!({"images_per_second": 7}));
    daemon.write(1..=3).join().unwrap();
    let status = || query_status("toy", Some(daemon.dir.path())).unwrap();
    assert_eq!(status().ranks[0].state, "waiting");
    let mut consumer = daemon.connect();
    drop(consumer.receive(LONG).unwrap());
    let status = status();
    assert_eq!(
        (status.name.as_str(), status.pid),
        ("toy", std::process::id())
    );
    assert_eq!(status.daemon["images_per_second"], 7);
    let rank = &status.ranks[0];
    assert_eq!(
        (rank.state.as_str(), rank.published, rank.slots),
        ("running", 3, 4)
    );
    assert_eq!(
        (rank.consumers[0].pid, rank.consumers[0].behind),
        (Some(std::process::id()), 2)
    );
}

#[test]
fn up_to_64_consumers_see_every_batch() {
    let daemon = Daemon::start(3, 64);
    let writer = daemon.write(1..=10);
    let mut consumers: Vec<_> = (0..64).map(|_| daemon.connect()).collect();
    match daemon.connect_rank(0) {
        Err(Error::Refused { reason }) => assert!(reason.contains("64"), "{reason}"),
        other => panic!("{other:?}"),
    }
    for sequence in 1..=10 {
        for consumer in &mut consumers {
            check(&consumer.receive(LONG).unwrap().unwrap(), sequence);
        }
    }
    writer.join().unwrap();
}

#[test]
fn a_consumer_that_holds_back_too_long_is_evicted_and_told() {
    let options = ServerOptions {
        consumers: 2,
        evict_after: Some(Duration::from_millis(200)),
        dir: None,
    };
    let daemon = Daemon::with_ranks(2, 1, options);
    let writer = daemon.write(1..=6);
    let mut slow = daemon.connect();
    let mut quick = daemon.connect();
    let held = slow.receive(LONG).unwrap().unwrap();
    held.validate().unwrap();
    (1..=6).for_each(|sequence| check(&quick.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    assert!(!support::intact(&held, 1), "its slot was written again");
    assert!(matches!(held.validate(), Err(Error::Evicted)));
    assert!(matches!(slow.receive(LONG), Err(Error::Evicted)));
    drop(held);
    let status = daemon.server.status();
    assert_eq!(
        (status.ranks[0].evicted, status.ranks[0].consumers.len()),
        (1, 1)
    );
    // It may come back, at the next batch.
    let mut back = daemon.connect();
    daemon.write(7..=7).join().unwrap();
    check(&back.receive(LONG).unwrap().unwrap(), 7);
}

#[test]
fn writers_are_let_go_when_the_server_is_dropped() {
    let daemon = Daemon::start(2, 1);
    let mut writer = daemon.server.writer(0).unwrap();
    daemon.write(1..=2).join().unwrap();
    let waiting =
        std::thread::spawn(move || writer.acquire(&AtomicBool::new(false), LONG).map(|_| ()));
    std::thread::sleep(Duration::from_millis(20));
    drop(daemon);
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
}

#[test]
fn a_failing_status_source_does_not_end_the_stream() {
    let daemon = Daemon::start(2, 1);
    daemon
        .server
        .set_status_source(|| panic!("figures are out"));
    let status = query_status("toy", Some(daemon.dir.path())).unwrap();
    assert!(status.daemon.is_null());
    daemon.write(1..=1).join().unwrap();
    check(&daemon.connect().receive(LONG).unwrap().unwrap(), 1);
}

#[test]
fn torn_bytes_are_never_taken_for_good_ones() {
    let options = ServerOptions {
        consumers: 2,
        evict_after: Some(Duration::from_millis(2)),
        dir: None,
    };
    let daemon = Daemon::with_ranks(2, 1, options);
    let mut dice = Dice(0x7ea5);
    let mut slow = daemon.connect();
    let mut steady = daemon.connect();
    let writer = daemon.write(1..=400);
    let reading = std::thread::spawn(move || {
        while steady.receive(LONG)?.is_some() {}
        Ok::<(), Error>(())
    });
    let (mut good, mut evicted, mut torn) = (0, 0, 0);
    loop {
        if writer.is_finished() {
            daemon.server.finish(Duration::ZERO);
        }
        let result = slow.receive(SHORT).and_then(|batch| {
            let Some(batch) = batch else { return Ok(false) };
            let sequence = batch.sequence();
            let (first, rest) = batch.images().split_at(24);
            let first = first.to_vec();
            std::thread::sleep(Duration::from_micros(dice.below(8) * 600));
            let copy = [first, rest.to_vec()].concat();
            let whole = (0..48).all(|at| copy[at] == byte(sequence, at));
            let valid = batch.validate();
            torn += usize::from(!whole);
            assert!(
                whole || valid.is_err(),
                "torn batch {sequence} passed for good"
            );
            good += usize::from(valid.is_ok());
            valid.map(|()| true)
        });
        match result {
            Ok(true) | Err(Error::TimedOut { .. }) => {}
            Ok(false) => break,
            Err(Error::Evicted) => {
                evicted += 1;
                slow = daemon.connect();
            }
            Err(error) => panic!("{error}"),
        }
    }
    writer.join().unwrap();
    // The steady one may be put out too, when its thread does not get to run.
    assert!(matches!(
        reading.join().unwrap(),
        Ok(()) | Err(Error::Evicted)
    ));
    assert!(
        good > 0 && evicted > 0,
        "good {good}, evicted {evicted}, torn {torn}"
    );
}
