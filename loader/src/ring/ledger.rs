//! Who has read what: which slot may be written next, and where a newcomer starts.
//!
//! Pure book-keeping without memory or threads. Batches are numbered from 1
//! without gaps; batch `n` lives in slot `(n - 1) % slots`.
//!
//! ```text
//!            base                head        acquired
//!   ---|------|---------|---------|-------------|--------> sequence
//!      read by all      |         |  being      not yet
//!                       read by   |  written    handed out
//!                       some      newest published
//! ```

use std::collections::BTreeSet;

/// One consumer's acknowledgements, written by that consumer alone.
pub(super) trait Acks {
    /// Newest batch in `slot` that the consumer has released. Untrusted.
    fn released(&self, slot: usize) -> u64;

    /// Newest batch that the consumer has received; 0 when it does not say. Untrusted.
    fn taken(&self) -> u64 {
        0
    }
}

/// Why the next slot cannot be written yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It can.
    Free,
    /// Fewer consumers than asked for have joined, or none is left.
    NoConsumers,
    /// These consumers have not released the batch that the slot holds.
    HeldBy(Vec<u64>),
    /// These consumers acknowledged batches that do not exist.
    Nonsense(Vec<u64>),
}

#[derive(Debug)]
pub(super) struct Member<A> {
    pub(super) id: u64,
    /// First batch this consumer gets.
    pub(super) first: u64,
    pub(super) acks: A,
}

/// State of one ring.
#[derive(Debug)]
pub(super) struct Ledger<A> {
    slots: u64,
    wanted: usize,
    /// Latched once `wanted` consumers were there at the same time.
    opened: bool,
    live: Vec<Member<A>>,
    head: u64,
    acquired: u64,
    /// Highest batch ever handed out for writing: everything at or before
    /// `dirty - slots` is overwritten.
    dirty: u64,
    /// Where a newcomer starts as long as that batch is intact.
    base: u64,
    /// Newest batch that the consumer which left last had received.
    last_taken: u64,
    filled: BTreeSet<u64>,
    abandoned: BTreeSet<u64>,
}

impl<A: Acks> Ledger<A> {
    /// A ring of `slots` that passes its first `slots` batches only once
    /// `wanted` consumers have been there together.
    pub(super) fn new(slots: usize, wanted: usize) -> Self {
        Self {
            slots: slots as u64,
            wanted: wanted.max(1),
            opened: false,
            live: Vec::new(),
            head: 0,
            acquired: 0,
            dirty: 0,
            base: 1,
            last_taken: 0,
            filled: BTreeSet::new(),
            abandoned: BTreeSet::new(),
        }
    }

    pub(super) fn live(&self) -> &[Member<A>] {
        &self.live
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn acquired(&self) -> u64 {
        self.acquired
    }

    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    fn slot(&self, sequence: u64) -> usize {
        ((sequence - 1) % self.slots) as usize
    }

    /// Oldest batch not yet overwritten.
    fn oldest_intact(&self) -> u64 {
        (self.dirty + 1).saturating_sub(self.slots).max(1)
    }

    /// First batch of a consumer that joins now.
    pub(super) fn first_for_newcomer(&self) -> u64 {
        if self.base >= self.oldest_intact() {
            self.base
        } else {
            self.head + 1
        }
    }

    pub(super) fn join(&mut self, member: Member<A>) {
        self.live.push(member);
        self.opened |= self.live.len() >= self.wanted;
    }

    /// Stops asking a consumer. When it was the last one, the ring freezes
    /// where that consumer stopped reading.
    pub(super) fn leave(&mut self, id: u64) -> Option<Member<A>> {
        let at = self.live.iter().position(|member| member.id == id)?;
        let member = self.live.remove(at);
        if self.live.is_empty() && self.opened {
            self.base = self.first_unread(&member);
            self.last_taken = member.acks.taken();
        }
        Some(member)
    }

    /// As [`leave`](Self::leave) for a consumer that loses what it holds.
    pub(super) fn evict(&mut self, id: u64) -> Option<Member<A>> {
        let member = self.leave(id)?;
        self.last_taken = 0;
        Some(member)
    }

    /// Oldest batch that `member` has not released; `head + 1` when there is none.
    pub(super) fn first_unread(&self, member: &Member<A>) -> u64 {
        let from = member.first.max(self.oldest_intact());
        (from..=self.head)
            .find(|&sequence| member.acks.released(self.slot(sequence)) < sequence)
            .unwrap_or(self.head + 1)
    }

    /// Whether the next batch can be written.
    pub(super) fn room(&self) -> Room {
        let Some(previous) = (self.acquired + 1)
            .checked_sub(self.slots)
            .filter(|&previous| previous > 0)
        else {
            return Room::Free;
        };
        if !self.opened || self.live.is_empty() {
            return Room::NoConsumers;
        }
        let slot = self.slot(previous);
        let those = |wrong: &dyn Fn(&Member<A>) -> bool| -> Vec<u64> {
            self.live
                .iter()
                .filter(|member| wrong(member))
                .map(|member| member.id)
                .collect()
        };
        let nonsense =
            those(&|member| member.acks.released(slot) > self.head.max(member.first - 1));
        if !nonsense.is_empty() {
            return Room::Nonsense(nonsense);
        }
        let holders = those(&|member| member.acks.released(slot) < previous);
        if holders.is_empty() {
            Room::Free
        } else {
            Room::HeldBy(holders)
        }
    }

    /// Hands out the next batch; only after [`room`](Self::room) said it is free.
    pub(super) fn acquire(&mut self) -> u64 {
        self.acquired += 1;
        self.dirty = self.dirty.max(self.acquired);
        self.acquired
    }

    /// Takes note that a batch is filled; calls `publish` for each that is now next in order.
    pub(super) fn fill(&mut self, sequence: u64, mut publish: impl FnMut(u64)) {
        self.filled.insert(sequence);
        while self.filled.remove(&(self.head + 1)) {
            self.head += 1;
            publish(self.head);
        }
    }

    /// Takes a batch back that was not filled. It will be handed out again when no later one is out.
    pub(super) fn abandon(&mut self, sequence: u64) {
        self.abandoned.insert(sequence);
        while self.abandoned.remove(&self.acquired) {
            self.acquired -= 1;
        }
    }

    /// A batch that is missing for good.
    pub(super) fn missing(&self) -> Option<u64> {
        self.abandoned.first().copied()
    }

    /// Whether every published batch has been read by everyone who should. A consumer that had received the newest
    /// batch when it left has read it: trainers often end with the last batch still in their hands.
    pub(super) fn delivered(&self) -> bool {
        if self.head == 0 {
            return true;
        }
        let unread = |member: &Member<A>| self.first_unread(member) <= self.head;
        match self.live.is_empty() {
            true => self.opened && (self.base > self.head || self.last_taken == self.head),
            false => self.opened && !self.live.iter().any(unread),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// The words of a consumer, and the newest batch it has received.
    #[derive(Clone, Debug)]
    struct Words(Rc<RefCell<Vec<u64>>>, Rc<Cell<u64>>);

    impl Acks for Words {
        fn released(&self, slot: usize) -> u64 {
            self.0.borrow()[slot]
        }

        fn taken(&self) -> u64 {
            self.1.get()
        }
    }

    fn join(ledger: &mut Ledger<Words>, id: u64, slots: usize) -> (u64, Words) {
        let first = ledger.first_for_newcomer();
        (first, join_at(ledger, id, slots, first))
    }

    fn join_at(ledger: &mut Ledger<Words>, id: u64, slots: usize, first: u64) -> Words {
        let words = Words(Rc::new(RefCell::new(vec![first - 1; slots])), Rc::default());
        ledger.join(Member {
            id,
            first,
            acks: words.clone(),
        });
        words
    }

    fn release(words: &Words, sequence: u64) {
        let mut words = words.0.borrow_mut();
        let slot = (sequence - 1) as usize % words.len();
        words[slot] = sequence;
    }

    fn write(ledger: &mut Ledger<Words>, count: u64) {
        for _ in 0..count {
            assert_eq!(ledger.room(), Room::Free);
            let sequence = ledger.acquire();
            ledger.fill(sequence, |_| {});
        }
    }

    #[test]
    fn everyone_who_joins_before_the_first_reuse_starts_at_the_beginning() {
        let mut ledger = Ledger::new(3, 2);
        write(&mut ledger, 3);
        assert_eq!(ledger.room(), Room::NoConsumers);
        let (first, one) = join(&mut ledger, 1, 3);
        assert_eq!((first, ledger.room()), (1, Room::NoConsumers));
        (1..=3).for_each(|sequence| release(&one, sequence));
        let (first, two) = join(&mut ledger, 2, 3);
        assert_eq!((first, ledger.room()), (1, Room::HeldBy(vec![2])));
        release(&two, 1);
        write(&mut ledger, 1);
        // Batch 1 is gone: the third gets what is published from now on.
        assert_eq!(join(&mut ledger, 3, 3).0, 5);
        assert!(!ledger.delivered());
    }

    #[test]
    fn a_ring_left_alone_goes_on_where_its_last_consumer_stopped() {
        let mut ledger = Ledger::new(4, 1);
        let (_, one) = join(&mut ledger, 1, 4);
        write(&mut ledger, 4);
        [1, 2, 4]
            .iter()
            .for_each(|&sequence| release(&one, sequence)); // 3 is held
        write(&mut ledger, 2);
        assert_eq!(ledger.room(), Room::HeldBy(vec![1]));
        assert!(ledger.leave(1).is_some());
        assert_eq!(ledger.room(), Room::NoConsumers);
        assert!(!ledger.delivered());
        let (first, two) = join(&mut ledger, 2, 4);
        assert_eq!((first, ledger.room()), (3, Room::HeldBy(vec![2])));
        (3..=6).for_each(|sequence| release(&two, sequence));
        assert!(ledger.delivered());
        ledger.leave(2);
        assert!(ledger.delivered());
        assert_eq!(ledger.first_for_newcomer(), 7);
    }

    #[test]
    fn who_left_with_the_newest_batch_in_hand_has_read_it() {
        let mut ledger = Ledger::new(3, 1);
        let (_, one) = join(&mut ledger, 1, 3);
        write(&mut ledger, 2);
        release(&one, 1);
        one.1.set(2);
        ledger.leave(1);
        assert!(ledger.delivered());
        // It is still there for a successor, and a newer one is not read.
        write(&mut ledger, 1);
        assert!(!ledger.delivered());
        let (first, two) = join(&mut ledger, 2, 3);
        assert_eq!(first, 2);
        // Received, but taken back.
        two.1.set(3);
        ledger.evict(2);
        assert!(!ledger.delivered());
        // Nonsense does not count.
        let (_, three) = join(&mut ledger, 3, 3);
        three.1.set(u64::MAX);
        ledger.leave(3);
        assert!(!ledger.delivered());
    }

    #[test]
    fn who_waits_for_a_later_batch_holds_nobody_back() {
        let mut ledger = Ledger::new(2, 1);
        let (_, one) = join(&mut ledger, 1, 2);
        write(&mut ledger, 2);
        let two = join_at(&mut ledger, 2, 2, 5);
        for sequence in 1..=4 {
            release(&one, sequence);
            write(&mut ledger, 1);
        }
        // Batch 5 is its own.
        release(&one, 5);
        assert_eq!(ledger.room(), Room::HeldBy(vec![2]));
        release(&two, 5);
        write(&mut ledger, 1);
        // Alone and still waiting, it lets the ring run.
        ledger.leave(1);
        ledger.leave(2);
        join_at(&mut ledger, 3, 2, 20);
        write(&mut ledger, 12);
        assert!(ledger.delivered());
        ledger.leave(3);
        assert_eq!(ledger.first_for_newcomer(), ledger.head() + 1);
    }

    #[test]
    fn words_from_the_future_are_noticed_and_words_from_the_past_hold_back() {
        let mut ledger = Ledger::new(2, 1);
        let (_, one) = join(&mut ledger, 1, 2);
        write(&mut ledger, 2);
        one.0.borrow_mut()[0] = u64::MAX;
        assert_eq!(ledger.room(), Room::Nonsense(vec![1]));
        one.0.borrow_mut()[0] = 0;
        assert_eq!(ledger.room(), Room::HeldBy(vec![1]));
        release(&one, 1);
        write(&mut ledger, 1);
        // Whatever it writes now, a successor never starts at an overwritten batch.
        one.0.borrow_mut().fill(0);
        ledger.leave(1);
        assert_eq!(ledger.first_for_newcomer(), 2);
    }

    #[test]
    fn batches_filled_out_of_order_are_published_in_order() {
        let mut ledger = Ledger::<Words>::new(3, 1);
        let [one, two, three] = [ledger.acquire(), ledger.acquire(), ledger.acquire()];
        let mut order = Vec::new();
        ledger.fill(three, |sequence| order.push(sequence));
        ledger.fill(one, |sequence| order.push(sequence));
        assert_eq!((order.as_slice(), ledger.head()), (&[1][..], 1));
        ledger.fill(two, |sequence| order.push(sequence));
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn an_abandoned_batch_is_handed_out_again_unless_later_ones_are_out() {
        let mut ledger = Ledger::<Words>::new(4, 1);
        let [one, two, three] = [ledger.acquire(), ledger.acquire(), ledger.acquire()];
        ledger.fill(one, |_| {});
        ledger.abandon(two);
        assert_eq!(ledger.missing(), Some(2));
        ledger.abandon(three);
        assert_eq!((ledger.missing(), ledger.acquire()), (None, 2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Write,
        Read(usize),
        Release(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Join),
            1 => any::<usize>().prop_map(Step::Leave),
            6 => Just(Step::Write),
            6 => any::<usize>().prop_map(Step::Read),
            6 => (any::<usize>(), any::<usize>()).prop_map(|(who, which)| Step::Release(who, which)),
        ]
    }

    struct Reader {
        id: u64,
        next: u64,
        held: Vec<u64>,
        words: Words,
    }

    proptest! {
        /// A slot always holds what its readers expect, readers miss nothing
        /// while they live, and a ring left alone loses nothing.
        #[test]
        fn no_reader_ever_sees_a_reused_slot(
            slots in 2..6_usize,
            wanted in 1..3_usize,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut ledger = Ledger::new(slots, wanted);
            let mut memory = vec![0_u64; slots];
            let mut readers: Vec<Reader> = Vec::new();
            let mut ids = 0;
            let mut resume: Option<u64> = None;
            for step in steps {
                match step {
                    Step::Join if readers.len() < 3 => {
                        ids += 1;
                        let (first, words) = join(&mut ledger, ids, slots);
                        if let Some(expected) = resume.take() {
                            prop_assert_eq!(first, expected);
                        }
                        readers.push(Reader { id: ids, next: first, held: Vec::new(), words });
                    }
                    Step::Leave(who) if !readers.is_empty() => {
                        let gone = readers.remove(who % readers.len());
                        ledger.leave(gone.id);
                        if readers.is_empty() && ledger.opened() {
                            resume = Some(gone.held.iter().copied().min().unwrap_or(gone.next));
                        }
                    }
                    Step::Write if ledger.room() == Room::Free => {
                        let sequence = ledger.acquire();
                        memory[(sequence - 1) as usize % slots] = sequence;
                        ledger.fill(sequence, |_| {});
                    }
                    Step::Read(who) if !readers.is_empty() => {
                        let count = readers.len();
                        let reader = &mut readers[who % count];
                        if reader.next <= ledger.head() {
                            reader.held.push(reader.next);
                            reader.next += 1;
                        }
                    }
                    Step::Release(who, which) if !readers.is_empty() => {
                        let count = readers.len();
                        let reader = &mut readers[who % count];
                        if !reader.held.is_empty() {
                            let which = which % reader.held.len();
                            release(&reader.words, reader.held.remove(which));
                        }
                    }
                    _ => {}
                }
                for reader in &readers {
                    let unread = (reader.next..=ledger.head()).chain(reader.held.iter().copied());
                    for sequence in unread {
                        prop_assert_eq!(memory[(sequence - 1) as usize % slots], sequence);
                    }
                }
            }
        }
    }
}
