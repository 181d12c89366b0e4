//! What clients did with one register and what they were told, and whether one order of it exists that explains all: the
//! check is `todc-utils`' (Wing & Gong, Lowe), for each register by itself. What nobody was told about may have happened at
//! any time after it was asked, or never. A check that does not end within its budget has shown nothing.

use std::{sync::mpsc, thread, time::Duration};

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{
            Action::{Call, Response},
            History,
        },
    },
    specifications::Specification,
};

/// What a client did. Values are never written twice; a register begins with 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It read this.
    Read(u64),
    /// It wrote this.
    Write(u64),
    /// It wrote `to` if `from` was still there (`If-Match`).
    Swap {
        /// What it had read.
        from: u64,
        /// What it wanted there.
        to: u64,
        /// Whether it was told that this was done; `None` if it was told nothing.
        was_done: Option<bool>,
    },
}

/// An operation and when it began and ended, on one counter for all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) operation: Operation,
    pub(crate) invoked: u64,
    /// `None` if nobody was told how it ended.
    pub(crate) returned: Option<u64>,
}

/// What a check has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Violated,
    /// The budget was used up.
    Undecided,
}

struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Operation;

    fn init() -> u64 {
        0
    }

    fn apply(operation: &Operation, state: &u64) -> (bool, u64) {
        match *operation {
            Operation::Read(value) => (value == *state, *state),
            Operation::Write(value) => (true, value),
            Operation::Swap { from, to, was_done } => {
                let is_there = from == *state;
                let after = if is_there { to } else { *state };
                (was_done.is_none_or(|was_done| was_done == is_there), after)
            }
        }
    }
}

/// Checks the history of one register within a budget.
pub(crate) fn check(events: &[Event], budget: Duration) -> Verdict {
    if events.is_empty() {
        return Verdict::Linearizable;
    }
    let mut times: Vec<(u64, usize, bool)> = Vec::new();
    for (number, event) in events.iter().enumerate() {
        times.push((event.invoked, number, false));
        times.push((event.returned.unwrap_or(u64::MAX), number, true));
    }
    times.sort_unstable();
    // Each operation is a process of its own: a client goes on after one whose end it never learnt.
    let actions = times.into_iter().map(|(_, number, is_end)| {
        let operation = events[number].operation;
        let action = if is_end {
            Response(operation)
        } else {
            Call(operation)
        };
        (number, action)
    });
    let history = History::from_actions(actions.collect());
    let (sender, receiver) = mpsc::sync_channel(1);
    // Ends with the program if it does not end before.
    thread::spawn(move || {
        let _ = sender.send(WGLChecker::<Register>::is_linearizable(history));
    });
    match receiver.recv_timeout(budget) {
        Ok(true) => Verdict::Linearizable,
        Ok(false) => Verdict::Violated,
        Err(_) => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        Event,
        Operation::{self, Read, Swap, Write},
        Verdict, check,
    };

    const BUDGET: Duration = Duration::from_secs(20);

    fn event(invoked: u64, returned: impl Into<Option<u64>>, operation: Operation) -> Event {
        Event {
            operation,
            invoked,
            returned: returned.into(),
        }
    }

    fn swap(from: u64, to: u64, was_done: impl Into<Option<bool>>) -> Operation {
        let was_done = was_done.into();
        Swap { from, to, was_done }
    }

    #[test]
    fn concurrent_operations_may_take_effect_in_any_order() {
        let events = [
            event(1, 6, Write(7)),
            event(2, 5, Write(8)),
            event(3, 4, Read(8)),
            event(7, 8, Read(7)),
            event(9, 10, swap(7, 9, true)),
            event(11, 12, swap(7, 10, false)),
            event(13, 14, Read(9)),
        ];
        assert_eq!(check(&events, BUDGET), Verdict::Linearizable);
    }

    #[test]
    fn a_stale_read_is_refused() {
        let events = [
            event(1, 2, Write(7)),
            event(3, 4, Write(8)),
            event(5, 6, Read(7)),
        ];
        assert_eq!(check(&events, BUDGET), Verdict::Violated);
    }

    #[test]
    fn an_acknowledged_write_that_is_lost_is_refused() {
        let events = [event(1, 2, Write(7)), event(3, 4, Read(0))];
        assert_eq!(check(&events, BUDGET), Verdict::Violated);
    }

    #[test]
    fn two_swaps_from_the_same_value_are_refused() {
        let events = [event(1, 3, swap(0, 7, true)), event(2, 4, swap(0, 8, true))];
        assert_eq!(check(&events, BUDGET), Verdict::Violated);
    }

    #[test]
    fn what_nobody_was_told_about_may_have_happened_or_not_but_only_once() {
        let unknown = event(1, None, Write(7));
        let not_seen = [unknown, event(2, 3, Read(0)), event(4, 5, Read(0))];
        assert_eq!(check(&not_seen, BUDGET), Verdict::Linearizable);
        let seen_late = [unknown, event(2, 3, Read(0)), event(4, 5, Read(7))];
        assert_eq!(check(&seen_late, BUDGET), Verdict::Linearizable);
        let gone_again = [unknown, event(2, 3, Read(7)), event(4, 5, Read(0))];
        assert_eq!(check(&gone_again, BUDGET), Verdict::Violated);
        let swapped = [event(1, None, swap(0, 7, None)), event(2, 3, Read(7))];
        assert_eq!(check(&swapped, BUDGET), Verdict::Linearizable);
    }

    #[test]
    fn an_exhausted_budget_is_no_pass() {
        // Twenty-two writes at once of which the last is read first: every order is tried.
        let mut events: Vec<Event> = (1..=22).map(|one| event(one, 1_000, Write(one))).collect();
        events.push(event(100, 101, Read(5)));
        events.push(event(102, 103, Read(0)));
        assert_eq!(check(&events, Duration::from_millis(1)), Verdict::Undecided);
    }
}
