//! The library from C and C++: an installed tree that programs are built against, services on `carnet.h`, and services
//! written to Winsock's contract. Under `carnet run` as people start them, and under valgrind.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod answers;
mod built;
mod link;
mod services;
mod valgrind;
mod winsock;
