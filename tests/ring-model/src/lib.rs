//! The ring between daemon and consumers, small enough for loom to run in every order of events.
//!
//! What is the daemon's own is its own here: the ledger of `loader/src/ring/` decides which slot may be written. The
//! words in shared memory are loom's, with the orders of `producer.rs`, `consumer.rs` and `sync.rs` there ([`Orders`]).
//! A payload that is read and written without an order in between is found by loom's cells.
//!
//! Nobody waits: whoever finds nothing to do is done, and loom tries all moments. That shows that nothing wrong is
//! read, not that everything gets on; the tests of `loader/tests/` show that with real processes.

#[allow(
    dead_code,
    reason = "all of the ledger, of which the model uses a part"
)]
#[path = "../../../loader/src/ring/ledger.rs"]
mod ledger;

use ledger::{Acks, Ledger, Member, Room};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

/// The memory orders that the ring relies on; a test weakens each.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// The daemon's stores of a batch's number and of the head.
    pub publish: Ordering,
    /// Whether the consumer's loads of these are followed by an acquire fence.
    pub receive: bool,
    /// The consumer's store when it releases a batch.
    pub release: Ordering,
    /// The daemon's load of that before it writes to the slot again.
    pub reuse: Ordering,
    /// Whether the fences stand between eviction and writing, and between reading and looking whether one was evicted.
    pub evict: bool,
}

impl Orders {
    /// Those of the ring.
    pub const REAL: Orders = Orders {
        publish: Ordering::Release,
        receive: true,
        release: Ordering::Release,
        reuse: Ordering::Acquire,
        evict: true,
    };

    /// `sync::load_acquire`.
    fn load(self, word: &AtomicU64) -> u64 {
        let value = word.load(Ordering::Relaxed);
        if self.receive {
            fence(Ordering::Acquire);
        }
        value
    }
}

/// A ring of one slot: the next batch always needs the place of the last.
struct Data {
    head: AtomicU64,
    sequence: AtomicU64,
    payload: UnsafeCell<u64>,
}

impl Data {
    fn new() -> Arc<Data> {
        Arc::new(Data {
            head: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            payload: UnsafeCell::new(0),
        })
    }
}

/// A consumer's own words.
#[derive(Clone)]
struct Words {
    released: Arc<AtomicU64>,
    generation: Arc<AtomicU64>,
    orders: Orders,
}

impl Words {
    fn new(orders: Orders) -> Words {
        Words {
            released: Arc::new(AtomicU64::new(0)),
            generation: Arc::new(AtomicU64::new(1)),
            orders,
        }
    }
}

impl Acks for Words {
    fn released(&self, _slot: usize) -> u64 {
        self.released.load(self.orders.reuse)
    }
}

/// The daemon's thread: a ledger and the writing side.
struct Daemon {
    data: Arc<Data>,
    ledger: Ledger<Words>,
    orders: Orders,
}

impl Daemon {
    fn new(data: &Arc<Data>, consumers: &[Words], orders: Orders) -> Daemon {
        let mut ledger = Ledger::new(1, consumers.len());
        for (id, words) in (1..).zip(consumers) {
            ledger.join(Member {
                id,
                first: 1,
                acks: words.clone(),
            });
        }
        Daemon {
            data: Arc::clone(data),
            ledger,
            orders,
        }
    }

    /// Writes the next batch if there is room for it.
    fn write(&mut self) -> bool {
        if self.ledger.room() != Room::Free {
            return false;
        }
        let sequence = self.ledger.acquire();
        self.data.payload.with_mut(|payload| {
            // SAFETY: what is being tested: loom ends the run if anybody else may be at it.
            unsafe { *payload = sequence }
        });
        let (data, publish) = (&self.data, self.orders.publish);
        self.ledger.fill(sequence, |next| {
            data.sequence.store(next, publish);
            data.head.store(next, publish);
        });
        true
    }
}

/// Reads batch `next` if it is there, checks it, and releases it unless told not to.
fn read(data: &Data, words: &Words, next: u64, releases: bool) -> bool {
    let orders = words.orders;
    if orders.load(&data.head) < next {
        return false;
    }
    assert_eq!(
        orders.load(&data.sequence),
        next,
        "overwritten before it was released"
    );
    data.payload.with(|payload| {
        // SAFETY: as in `Daemon::write`.
        assert_eq!(unsafe { *payload }, next);
    });
    if releases {
        words.released.store(next, orders.release);
    }
    true
}

/// Consumers read two batches of a slot that is written a second time while they are at it.
pub fn a_slot_is_written_again(consumers: usize, orders: Orders) {
    let data = Data::new();
    let words: Vec<Words> = (0..consumers).map(|_| Words::new(orders)).collect();
    let mut daemon = Daemon::new(&data, &words, orders);
    let readers: Vec<_> = words
        .into_iter()
        .map(|words| {
            let data = Arc::clone(&data);
            thread::spawn(move || {
                let _ = read(&data, &words, 1, true) && read(&data, &words, 2, true);
            })
        })
        .collect();
    assert!(daemon.write());
    daemon.write();
    for reader in readers {
        reader.join().expect("a reader that found all right");
    }
}

/// A consumer ends with a batch in its hands, another goes on. The daemon hears of the death after it, as by a pidfd.
pub fn a_consumer_dies_with_a_batch(orders: Orders) {
    let data = Data::new();
    let words = [Words::new(orders), Words::new(orders)];
    let mut daemon = Daemon::new(&data, &words, orders);
    let [dying, living] = words;
    let victim = {
        let data = Arc::clone(&data);
        thread::spawn(move || {
            read(&data, &dying, 1, false);
        })
    };
    let survivor = {
        let data = Arc::clone(&data);
        thread::spawn(move || {
            let _ = read(&data, &living, 1, true) && read(&data, &living, 2, true);
        })
    };
    assert!(daemon.write());
    assert!(!daemon.write(), "who has not released it holds it");
    victim.join().expect("a reader that found all right");
    assert!(daemon.ledger.leave(1).is_some());
    daemon.write();
    survivor.join().expect("a reader that found all right");
}

/// A consumer loses its batch while it reads. Whatever it read, it does not take a mixture for a batch.
///
/// The payload is two words that may be torn, as bytes in shared memory are.
pub fn a_consumer_is_evicted(orders: Orders) {
    let data = Data::new();
    let words = Words::new(orders);
    let payload = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
    let mut daemon = Daemon::new(&data, std::slice::from_ref(&words), orders);
    assert!(daemon.write());
    let reader = {
        let (data, words, payload) = (Arc::clone(&data), words.clone(), Arc::clone(&payload));
        thread::spawn(move || {
            let seen = [0, 1].map(|at| payload[at].load(Ordering::Relaxed));
            // `ReadBatch::validate`.
            if orders.evict {
                fence(Ordering::SeqCst);
            }
            let evicted = orders.load(&words.generation) == 0;
            if !evicted && orders.load(&data.sequence) == 1 {
                assert_eq!(seen, [1, 1], "taken for batch 1");
            }
        })
    };
    // `Ring::evict`, then the next writer.
    let member = daemon.ledger.evict(1).expect("a living consumer");
    member.acks.generation.store(0, Ordering::Release);
    if orders.evict {
        fence(Ordering::SeqCst);
    }
    for word in payload.iter() {
        word.store(2, Ordering::Relaxed);
    }
    reader.join().expect("a reader that found all right");
}
