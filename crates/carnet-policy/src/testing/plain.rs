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
