//! What tests and benchmarks begin with.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{OnDead, Owner, Provider, Reach, Service, SockName};

/// A provider with nothing remarkable and no filters, which can be in one policy with those of other numbers: name,
/// handle, rank, owner and listener follow from the number.
pub fn plain_provider(index: u16) -> Provider {
    Provider {
        name: format!("p{index}"),
        handle: 1 + u32::from(index),
        rank: 10 * (1 + index),
        service: Service::Aware,
        on_dead: OnDead::Closed,
        direct: false,
        reach: Reach::Routes,
        sockname: SockName::Own,
        owners: vec![Owner::Uid(60_000 + u32::from(index))],
        listeners: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 15_000 + index))],
        in_flight_limit: 0,
        filters: Vec::new(),
    }
}

/// Numbers that look like any and are the same in every run: splitmix64, from this seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    #[expect(clippy::should_implement_trait, reason = "they do not end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
