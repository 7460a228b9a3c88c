//! The policy: which connections go to which provider, and in what order.
//!
//! Data flow: a [`Policy`] (the model, written by people) is checked and flattened by [`Policy::compile`] into an
//! [`Image`], which the kernel program evaluates. [`decide`] evaluates the model itself and never looks at an image, so
//! the two evaluators can be compared; [`Image::question`] and [`Image::answer`] translate for that comparison. Nothing
//! here touches the kernel.
//!
//! Why every flow ends: each hop is to a provider of a higher rank than the connection's floor, and the floor of a
//! provider's own connections is at least its rank, whatever the service does or forgets. So a flow takes at most as
//! many hops as there are providers. `tests/termination` walks every behaviour of up to four services to show it.
#![forbid(unsafe_code)]

mod compile;
mod decide;
mod explain;
pub mod file;
mod handles;
mod matching;
mod mistake;
mod policy;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod validate;
mod who;

pub use compile::{Bytes, Image, Progress};
pub use decide::{Carried, Decision, Question, Reason, Verdict, decide};
pub use explain::{Assumed, Explanation, Fate, Hop, Stop, explain, walk};
pub use handles::Handles;
pub use matching::{Mismatch, Part};
pub use mistake::{Error, FilterName, Mistake};
pub use policy::{
    Action, Condition, Executable, Filter, FilterRef, HostAction, HostFilter, Line, Match, OnDead, Owner, Policy,
    Prefix, Protocol, Provider, Reach, Service, SockName,
};
pub use state::state;
pub use who::{Identity, Providers, Who};
