//! What answers and events show: a run is to have seen all there is, or its steps go nowhere.

use carnet_abi as abi;

use crate::model::{Answer, Told};
use crate::op::Op;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Seen {
    /// `CARNET_RECORDS` was set, or refused with this errno.
    Set(i32),
    /// `CARNET_RECORDS` was not given, with this errno.
    NoRecords(i32),
    State(u32),
    Record,
    Context,
    OriginalDestination,
    /// Verdict and reason.
    Decision(u32, u32),
    AmbiguousOrigin,
    InferredRecord,
    SetEvent,
    /// How it ended.
    End(u32),
    Lost,
}

impl Seen {
    pub fn in_answer(op: &Op, answer: &Answer) -> Option<Self> {
        match (op, answer) {
            (Op::Set { .. }, Answer::Error(error)) => Some(Self::Set(*error)),
            (Op::State { .. }, Answer::State(state)) => Some(Self::State(*state)),
            (Op::Records { .. }, Answer::Error(error)) => Some(Self::NoRecords(*error)),
            (_, Answer::Records(_) | Answer::Flow(..)) => Some(Self::Record),
            (_, Answer::Context(_)) => Some(Self::Context),
            (_, Answer::Original(..)) => Some(Self::OriginalDestination),
            _ => None,
        }
    }

    pub fn in_event(told: &Told) -> Self {
        match told {
            Told::Connect { record, .. } if record.origin.ambiguous => Self::AmbiguousOrigin,
            Told::Connect { record, base: 1.., .. } if record.origin.inferred => Self::InferredRecord,
            Told::Connect { verdict, reason, .. } => Self::Decision(*verdict, *reason),
            Told::Set { .. } => Self::SetEvent,
            Told::End { how, .. } => Self::End(*how),
            Told::Lost { .. } => Self::Lost,
        }
    }
}

macro_rules! to_be_seen {
    ($($seen:expr,)*) => {
        /// With its name in the source, which says more than the numbers.
        pub const TO_BE_SEEN: &[(&str, Seen)] = &[$((stringify!($seen), $seen),)*];
    };
}

to_be_seen! {
    Seen::NoRecords(libc::EIDRM),
    Seen::NoRecords(libc::ENODATA),
    Seen::NoRecords(libc::EMSGSIZE),
    Seen::Set(0),
    Seen::Set(libc::EACCES),
    Seen::Set(libc::EBADMSG),
    Seen::Set(libc::EINVAL),
    Seen::Set(libc::EISCONN),
    Seen::Set(libc::ENOPROTOOPT),
    Seen::Set(libc::ESTALE),
    Seen::State(abi::State::NotRedirected as u32),
    Seen::State(abi::State::RedirectedBySelf as u32),
    Seen::State(abi::State::RedirectedByOther as u32),
    Seen::State(abi::State::PreviouslyRedirectedBySelf as u32),
    Seen::Record,
    Seen::Context,
    Seen::OriginalDestination,
    Seen::Decision(abi::VERDICT_PASS, abi::REASON_RULE),
    Seen::Decision(abi::VERDICT_PASS, abi::REASON_DEFAULT),
    Seen::Decision(abi::VERDICT_PASS, abi::REASON_TERMINAL),
    Seen::Decision(abi::VERDICT_REDIRECT, abi::REASON_RULE),
    Seen::Decision(abi::VERDICT_DIRECT, abi::REASON_RULE),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_DEAD),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_STRANGER),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_FAMILY),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_BLOCKED),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_OWN_LISTENER),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_NOT_DIRECT),
    Seen::Decision(abi::VERDICT_REFUSE, abi::REASON_RUNAWAY),
    Seen::AmbiguousOrigin,
    Seen::InferredRecord,
    Seen::SetEvent,
    Seen::End(abi::HOW_CLOSED),
    Seen::End(abi::HOW_RESET),
    Seen::End(abi::HOW_ABORTED),
    Seen::End(abi::HOW_FAILED),
    Seen::Lost,
}
