//! The ring's orders hold in every order of events, and each of them is needed.

use ddas_ring_model::{
    Orders, a_consumer_dies_with_a_batch, a_consumer_is_evicted, a_slot_is_written_again,
};
use loom::sync::atomic::Ordering;

/// Runs a model in every order of events with at most `preemptions` changes of thread that nothing forces.
fn explored(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Whether loom finds an order of events in which the model goes wrong.
fn goes_wrong(model: impl Fn() + Sync + Send + 'static) -> bool {
    let run = std::panic::AssertUnwindSafe(|| explored(3, model));
    std::panic::catch_unwind(run).is_err()
}

#[test]
fn a_slot_is_reused_only_after_its_readers() {
    explored(5, || a_slot_is_written_again(1, Orders::REAL));
    explored(3, || a_slot_is_written_again(2, Orders::REAL));
}

#[test]
fn a_dead_consumer_needs_no_repair() {
    explored(3, || a_consumer_dies_with_a_batch(Orders::REAL));
}

#[test]
fn an_evicted_consumer_never_takes_torn_bytes_for_a_batch() {
    explored(5, || a_consumer_is_evicted(Orders::REAL));
}

#[test]
fn each_order_is_needed() {
    let relaxed = Ordering::Relaxed;
    for weaker in [
        Orders {
            publish: relaxed,
            ..Orders::REAL
        },
        Orders {
            receive: false,
            ..Orders::REAL
        },
        Orders {
            release: relaxed,
            ..Orders::REAL
        },
        Orders {
            reuse: relaxed,
            ..Orders::REAL
        },
    ] {
        assert!(
            goes_wrong(move || a_slot_is_written_again(1, weaker)),
            "{weaker:?}"
        );
    }
    let weaker = Orders {
        evict: false,
        receive: false,
        ..Orders::REAL
    };
    assert!(goes_wrong(move || a_consumer_is_evicted(weaker)));
}
