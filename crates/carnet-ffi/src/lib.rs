//! The library `carnet` for C and C++, and for every language that calls C: `include/carnet.h`, `libcarnet.so`,
//! `libcarnet.a`.
//!
//! Data comes in as descriptors, pointers and lengths, and goes out into the caller's buffers, or as an opaque object
//! with a function that frees it. Every exported function begins with `boundary!`, which no panic passes. Everything
//! that is about connections is in the crate `carnet`; here it is only put into C's terms.
//!
//! `docs/c-api.md` is the reference, and `docs/adr/0017-the-c-library-has-opaque-objects.md` says why it has this shape.
//! The headers are generated from these files by the tests in `tests/headers.rs`.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(non_camel_case_types, reason = "the names are those which C sees")]

#[macro_use]
mod boundary;
mod buffer;
mod dial;
mod error;
mod flow;
mod query;
mod socket;
#[cfg(not(windows))]
mod wsa;

#[cfg(not(windows))]
pub use crate::wsa::*;
pub use crate::{dial::*, error::*, flow::*, query::*, socket::*};
