//! Every flow ends: a plain model of services that pass a flow on, walked with the reference decision.
//!
//! `walk` follows one flow through services that behave in any way. `world` is a small world with services of all
//! `kinds`, and `choices` makes a flow meet everything that can be in it. The checks:
//!
//! - `registered`: services whose outgoing connections are known as theirs, whatever they do or forget.
//! - `outside`: services that hand the flow to a process that is not theirs, which only the runaway guard ends.
//! - `changing`: policies that change under the flow.
//! - `large`: generated policies of up to 16 providers.
//!
//! A check that finds no loop proves something only if it would have found one. So rules (`rules`) are broken on purpose,
//! and then loops must appear.

mod changing;
mod choices;
mod kinds;
mod large;
mod outside;
mod registered;
mod rules;
mod walk;
mod world;
