//! Kinds of service.

use carnet_policy::Service;

use crate::walk::{Behaviour, Carries, Dials};

/// A kind of service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind {
    pub declared: Service,
    pub behaviour: Behaviour,
}

/// Every kind of service among `providers` whose connections are all its own.
pub fn registered_kinds(providers: usize) -> Vec<Kind> {
    let mut kinds = kinds(providers, Carries::Record);
    kinds.extend(self::kinds(providers, Carries::Nothing));
    for carries in [Carries::Nothing, Carries::NothingInACrowd] {
        let behaviour = Behaviour { dials: Dials::Destination, carries };
        kinds.push(Kind { declared: Service::Unaware, behaviour });
    }
    kinds
}

/// Every kind of service among `providers` that hands the flow to a process outside its owner.
pub fn outside_kinds(providers: usize) -> Vec<Kind> {
    kinds(providers, Carries::Outside)
}

fn kinds(providers: usize, carries: Carries) -> Vec<Kind> {
    let upstreams = (0..providers).map(Dials::Listener);
    [Dials::Destination, Dials::Other]
        .into_iter()
        .chain(upstreams)
        .map(|dials| Kind { declared: Service::Aware, behaviour: Behaviour { dials, carries } })
        .collect()
}
