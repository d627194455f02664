//! What a ring's status shows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::figures::{Figures, Rates};
use super::super::layout;
use super::super::ledger::Acks;
use super::super::sync::monotonic_nanoseconds;
use super::{AckWords, Outcome, Ring};

/// One line of a ring's status.
#[derive(Clone, Copy, Debug)]
pub(in crate::ring) struct MemberView {
    pub(in crate::ring) id: u64,
    pub(in crate::ring) first: u64,
    pub(in crate::ring) first_unread: u64,
    pub(in crate::ring) waited_seconds: Option<f64>,
    pub(in crate::ring) waiting_seconds: f64,
    pub(in crate::ring) holding_seconds: f64,
}

/// A snapshot of a ring's numbers.
#[derive(Clone, Debug)]
pub(in crate::ring) struct RingView {
    pub(in crate::ring) figures: Figures,
    pub(in crate::ring) rates: [Rates; 2],
    /// Slots that hold a batch which some consumer has not released.
    pub(in crate::ring) ready: u64,
    pub(in crate::ring) published: u64,
    pub(in crate::ring) acquired: u64,
    pub(in crate::ring) opened: bool,
    pub(in crate::ring) outcome: Outcome,
    pub(in crate::ring) held_back: Option<Duration>,
    pub(in crate::ring) members: Vec<MemberView>,
}

impl AckWords {
    /// Seconds of all waits for batches and of the present one, as the consumer says; `None` when it says nothing.
    fn waits(&self) -> (Option<f64>, f64) {
        let waited = self.0.u64(layout::ACK_WAITED).load(Ordering::Relaxed);
        let since = self
            .0
            .u64(layout::ACK_WAITING_SINCE)
            .load(Ordering::Relaxed);
        let waiting = since_seconds(since);
        let says = waited != 0 || since != 0 || self.taken() != 0;
        (says.then_some(waited as f64 / 1e9 + waiting), waiting)
    }
}

/// Seconds since a moment of CLOCK_MONOTONIC that another process wrote: 0 for none, and for nonsense.
fn since_seconds(moment: u64) -> f64 {
    match moment {
        0 => 0.0,
        moment => monotonic_nanoseconds().saturating_sub(moment) as f64 / 1e9,
    }
}

impl Ring {
    pub(in crate::ring) fn view(&self) -> RingView {
        let state = self.lock();
        let ledger = &state.ledger;
        let head = ledger.head();
        let members = ledger.live().iter().map(|member| {
            let first_unread = ledger.first_unread(member);
            let taken = member.acks.taken();
            let (waited_seconds, waiting_seconds) = member.acks.waits();
            let taken_at = member.acks.0.u64(layout::ACK_TAKEN_AT);
            // It has received a batch that it has not released: its oldest unread one, or a later one.
            let holds = (first_unread..=head).contains(&taken);
            MemberView {
                id: member.id,
                first: member.first,
                first_unread,
                waited_seconds,
                waiting_seconds,
                holding_seconds: match holds {
                    true => since_seconds(taken_at.load(Ordering::Relaxed)),
                    false => 0.0,
                },
            }
        });
        let members: Vec<_> = members.collect();
        let oldest = members.iter().map(|member| member.first_unread).min();
        // Without consumers everything that is kept for one is ready.
        let unread = oldest.unwrap_or_else(|| ledger.first_for_newcomer());
        let slots = self.geometry.shape.slots as u64;
        RingView {
            rates: state.figures.rates(head),
            figures: state.figures.clone(),
            ready: (head + 1)
                .saturating_sub(unread)
                .min(slots.saturating_sub(ledger.acquired() - head)),
            published: ledger.head(),
            acquired: ledger.acquired(),
            opened: ledger.opened(),
            outcome: state.outcome,
            held_back: state.held_back.map(|(_, since)| since.elapsed()),
            members,
        }
    }
}
