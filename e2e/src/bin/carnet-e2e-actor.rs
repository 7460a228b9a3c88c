//! Makes single socket calls for a test: see `carnet_e2e::actor`.
#![forbid(unsafe_code)]

use anyhow::Result;
use carnet_e2e::actor;

fn main() -> Result<()> {
    match std::env::args().nth(1) {
        Some(call) => actor::once(&call),
        None => actor::serve(),
    }
}
