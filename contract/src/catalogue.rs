//! All cases, in the order in which they are asked.

use crate::case::Case;

mod datagrams;
mod ending;
mod numbers;
mod overlapped;
mod parameters;
mod ports;
mod privilege;
mod provider;
mod routines;
mod set;
mod sizes;
mod sockets;
mod waits;

pub fn all() -> Vec<Case> {
    [
        numbers::cases(),
        parameters::cases(),
        sizes::cases(),
        sockets::cases(),
        set::cases(),
        overlapped::cases(),
        routines::cases(),
        ending::cases(),
        waits::cases(),
        provider::cases(),
        privilege::cases(),
        datagrams::cases(),
        // Last: a socket keeps its port.
        ports::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the engine does not answer, where there is none.
const NOT_SUPPORTED: &str = "WSAEOPNOTSUPP, bytes = 0";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Linux;

    #[test]
    fn ids_are_unique_and_every_case_is_complete() {
        let mut ids = BTreeSet::new();
        for case in all() {
            assert!(ids.insert(case.id.clone()), "{} is there twice", case.id);
            assert!(!case.about.is_empty() && !case.rule.is_empty(), "{}", case.id);
            assert!(!matches!(&case.linux, Linux::Answers(answer) if answer.is_empty()), "{}", case.id);
        }
    }
}
