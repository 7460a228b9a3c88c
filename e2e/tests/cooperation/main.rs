//! Services of all kinds on one host: those that carry records, those that ask for `SO_ORIGINAL_DST`, those that look at
//! their own address; copies of one, ones that restart or register while flows live; other engines and other programs.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod copies;
mod live;
mod orders;
mod runs;
mod stage;
mod transparent;
mod walk;
mod way;
