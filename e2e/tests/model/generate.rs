//! Random sequences that get somewhere: the model is asked what there is, and most steps are about that.

use carnet_e2e::actor::Family;

use crate::model::{Model, TcpState};
use crate::op::{BLOBS, Damage, Ip, LISTENERS, Op, Port, ROLES, Role, SLOTS, Source, opening};
use crate::policies::VARIANTS;

/// Splitmix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The sequence of this seed.
pub fn sequence(model: &Model, seed: u64) -> Vec<Op> {
    let mut random = Random::new(seed);
    let mut model = model.clone();
    model.step(&Op::Policy { variant: 0 });
    for op in opening() {
        model.step(&op);
    }
    let length = 4 + random.below(37);
    let mut ops = Vec::new();
    for op in beginning(&mut random) {
        model.step(&op);
        ops.push(op);
    }
    while ops.len() < length {
        let op = random.op(&model);
        if model.step(&op).0 != crate::model::Answer::Nothing {
            ops.push(op);
        }
    }
    ops
}

/// A situation that chance alone would seldom bring about, or some policy.
fn beginning(random: &mut Random) -> Vec<Op> {
    let ip = random.pick(&[Ip::V4, Ip::V6]);
    let family = random.pick(&[Family::V4, Family::Dual]);
    let port = Port::Server;
    let connection = |by, slot| [Op::Socket { by, slot, family }, Op::Connect { by, slot, ip, port }];
    let [a, b, c, d] = [LISTENERS, LISTENERS + 1, LISTENERS + 2, LISTENERS + 3];
    match random.below(10) {
        // As many connections as the limit allows, and one more.
        0 => {
            [vec![Op::Policy { variant: 7 }], connection(Role::App, a).into(), connection(Role::App, b).into()].concat()
        }
        // The unaware service holds flows of two applications.
        1 => {
            let flows = [connection(Role::App, a), connection(Role::S0, b), connection(Role::S1, c)].concat();
            [vec![Op::Policy { variant: 4 }], flows].concat()
        }
        // The first service goes on with a flow's record.
        // ... and perhaps once more, when the policy is another.
        again @ (2 | 3) => {
            let mut ops = Vec::from(connection(Role::App, a));
            let by = Role::S0;
            let from = if family == Family::Dual && ip == Ip::V6 { 3 } else { 2 };
            ops.push(Op::Accept { by, slot: b, from });
            ops.push(Op::Records { by, slot: b, length: 640, blob: 0 });
            ops.push(Op::Socket { by, slot: c, family });
            // First as it must not be.
            let damage = Damage::Bit(random.below(16 * 8) as u16);
            ops.push(Op::Set { by, slot: c, blob: 0, damage });
            ops.push(Op::Set { by, slot: c, blob: 0, damage: Damage::None });
            ops.push(Op::Connect { by, slot: c, ip, port });
            if again == 3 {
                ops.push(Op::Disconnect { by, slot: c });
                ops.push(Op::Policy { variant: random.below(VARIANTS.into()) as u8 });
                ops.push(Op::Connect { by, slot: c, ip, port });
            }
            ops
        }
        // Somebody outside dials the first service.
        4 => vec![
            Op::Socket { by: Role::Outside, slot: a, family: Family::V4 },
            Op::Connect { by: Role::Outside, slot: a, ip: Ip::V4, port: Port::Service(0) },
            Op::Accept { by: Role::S0, slot: d, from: 2 },
        ],
        // The client of an accepted connection has reset it.
        8 => {
            let mut ops = Vec::from(connection(Role::App, a));
            let from = if family == Family::Dual && ip == Ip::V6 { 3 } else { 2 };
            ops.push(Op::Accept { by: Role::S0, slot: b, from });
            ops.push(Op::Records { by: Role::S0, slot: b, length: 528, blob: 0 });
            ops.push(Op::Disconnect { by: Role::App, slot: a });
            ops.push(Op::Set { by: Role::S0, slot: b, blob: 0, damage: Damage::None });
            ops
        }
        // Somebody else has come to the first service's place.
        5 => {
            let stranger = Op::Listen { by: Role::S1, slot: 2, port: Port::Service(0), v6: false };
            [vec![Op::Close { slot: 2 }, stranger], connection(Role::App, a).into()].concat()
        }
        6 | 7 => vec![Op::Policy { variant: random.below(VARIANTS.into()) as u8 }],
        _ => Vec::new(),
    }
}

impl Random {
    fn op(&mut self, model: &Model) -> Op {
        let full: Vec<u8> = (0..SLOTS).filter(|&slot| model.at(slot).is_some()).collect();
        let used: Vec<u8> = full.iter().copied().filter(|&slot| slot >= LISTENERS).collect();
        let free: Vec<u8> = (LISTENERS..SLOTS).filter(|slot| !used.contains(slot)).collect();
        let waiting: Vec<u8> = full
            .iter()
            .copied()
            .filter(|&slot| {
                let state = model.at(slot).map(|id| model.tcp_state(id));
                matches!(state, Some(TcpState::Listening { waiting }) if waiting > 0)
            })
            .collect();
        let blobs: Vec<u8> = (0..BLOBS).filter(|&blob| model.has_blob(blob)).collect();
        // What has come is mostly accepted, and what is accepted is mostly asked about.
        if !waiting.is_empty() && !free.is_empty() && self.below(3) > 0 {
            let (slot, from) = (self.pick(&free), self.pick(&waiting));
            return Op::Accept { by: self.owner(model, from), slot, from };
        }
        if used.is_empty() || !free.is_empty() && self.below(6) == 0 {
            let family = self.pick(&[Family::V4, Family::V4, Family::Dual, Family::V6]);
            let by = self.pick(&[Role::App, Role::App, Role::S0, Role::S0, Role::S1, Role::S2, Role::Outside]);
            return Op::Socket { by, slot: free.first().copied().unwrap_or(LISTENERS), family };
        }
        // Who comes back to a place where nobody listens any more may be somebody else.
        let gone: Vec<Op> =
            opening().into_iter().filter(|op| matches!(op, Op::Listen { slot, .. } if !full.contains(slot))).collect();
        if !gone.is_empty() && self.below(8) == 0 {
            let back = self.pick(&gone);
            return match back {
                Op::Listen { slot, port, v6, .. } if self.below(2) == 0 => {
                    let by = self.pick(&[Role::S0, Role::S1, Role::S2, Role::App, Role::Outside]);
                    Op::Listen { by, slot, port, v6 }
                }
                back => back,
            };
        }
        let slot = if self.below(20) == 0 { self.pick(&full) } else { self.pick(&used) };
        let by = if self.below(4) == 0 { self.pick(&ROLES) } else { self.owner(model, slot) };
        match self.below(100) {
            0..26 => Op::Connect { by, slot, ip: self.ip(), port: self.port() },
            26..38 => Op::Records { by, slot, length: self.length(528), blob: self.below(BLOBS.into()) as u8 },
            38..52 if !blobs.is_empty() => Op::Set { by, slot, blob: self.pick(&blobs), damage: self.damage() },
            38..58 => Op::State { by, slot, length: self.length(4) },
            58..61 => Op::Flow { by, slot, length: self.length(432) },
            61..64 => Op::Context { by, slot, length: self.length(16) },
            64..67 => {
                let v6 = self.below(2) == 1;
                Op::OriginalDst { by, slot, v6, length: self.length(28) }
            }
            67..71 => Op::PeerName { by, slot },
            71..75 => Op::Send { by, slot },
            75..78 => Op::Receive { by, slot },
            78..81 => Op::Shutdown { by, slot },
            81..85 => Op::Disconnect { by, slot },
            85..88 => Op::Bind { by, slot, to: self.pick(&[Source::Loopback, Source::OtherV4]) },
            88..93 => Op::Close { slot: self.pick(&full) },
            93..95 => {
                let empty: Vec<u8> = (0..SLOTS).filter(|slot| !full.contains(slot)).collect();
                let by = self.pick(&[Role::S0, Role::S0, Role::S1, Role::S1, Role::S2, Role::App, Role::Outside]);
                let (port, v6) = (self.port(), self.below(2) == 1);
                Op::Listen { by, slot: empty.first().copied().unwrap_or_default(), port, v6 }
            }
            95..97 => Op::RotateKey,
            _ => Op::Policy { variant: self.below(VARIANTS.into()) as u8 },
        }
    }

    /// Whose socket it is, sometimes in a process forked from the application.
    fn owner(&mut self, model: &Model, slot: u8) -> Role {
        match model.at(slot).map(|id| model.socks[id].maker) {
            Some(Role::App) if self.below(12) == 0 => Role::Fork,
            Some(maker) => maker,
            None => Role::App,
        }
    }

    fn ip(&mut self) -> Ip {
        self.pick(&[Ip::V4, Ip::V4, Ip::V4, Ip::V6, Ip::V6, Ip::V6, Ip::OtherV4, Ip::Any])
    }

    fn port(&mut self) -> Port {
        let service = self.below(3) as u8;
        self.pick(&[
            Port::Server,
            Port::Server,
            Port::Server,
            Port::Server,
            Port::Closed,
            Port::Helper,
            Port::Service(service),
        ])
    }

    /// Mostly enough.
    fn length(&mut self, enough: u16) -> u16 {
        match self.below(10) {
            0 => self.below(usize::from(enough) + 1) as u16,
            1 => enough,
            2 => 4096,
            _ => enough + 100,
        }
    }

    fn damage(&mut self) -> Damage {
        match self.below(9) {
            // Half of the time among what is looked at before the tag.
            0 if self.below(2) == 0 => Damage::Bit(self.below(16 * 8) as u16),
            0 => Damage::Bit(self.below(528 * 8) as u16),
            1 => Damage::Length(self.below(700) as u16),
            _ => Damage::None,
        }
    }
}
