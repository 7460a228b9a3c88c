//! The socket options, as docs/socket-options.md has them.

use std::mem::offset_of;
use std::net::SocketAddr;

use carnet_abi::{self as abi, State};
use carnet_e2e::actor::Family;
use carnet_policy::{Action, FilterRef};
use libc::{EACCES, EBADMSG, EIDRM, EINVAL, EISCONN, EMSGSIZE, ENODATA, ENOENT, ENOPROTOOPT, EOPNOTSUPP, ESTALE};

use super::tcp::TcpState;
use super::{Accepted, Answer, Blob, Carried, Model, Record, Role, SockId, Told};
use crate::op::Damage;

/// What the kernel answers itself to `SO_ORIGINAL_DST`: not the same on every machine, so whoever compares looks it up.
pub const KERNELS_OWN: i32 = -1;

impl Model {
    pub(super) fn records(&mut self, id: SockId, length: usize, blob: u8) -> Answer {
        let record = match self.held(id) {
            Ok((record, _)) => record.clone(),
            Err(error) => return Answer::Error(error),
        };
        if length < size_of::<abi::Records>() {
            return Answer::Error(EMSGSIZE);
        }
        self.blobs[usize::from(blob)] = Some(Blob { record: record.clone(), key: self.key });
        Answer::Records(record)
    }

    pub(super) fn flow(&self, id: SockId, length: usize) -> Answer {
        let (record, remote) = match self.held(id) {
            Ok(held) => held,
            Err(error) => return Answer::Error(error),
        };
        if length < offset_of!(abi::Flow, flow) {
            return Answer::Error(EMSGSIZE);
        }
        let ends = abi::Flow::FIELDS.iter().map(|(_, at, size)| at + size).filter(|end| *end <= length);
        Answer::Flow(record.clone(), remote, ends.max().unwrap_or_default())
    }

    pub(super) fn context(&self, id: SockId, length: usize) -> Answer {
        if let Err(error) = self.held(id) {
            return Answer::Error(error);
        }
        match &self.socks[id].accepted {
            Accepted::With { context: Some((generation, bytes)), .. } => {
                if self.generation - generation > 1 {
                    Answer::Error(EIDRM)
                } else if length < bytes.len() {
                    Answer::Error(EMSGSIZE)
                } else {
                    Answer::Context(bytes.clone())
                }
            }
            _ => Answer::Error(ENOENT),
        }
    }

    pub(super) fn state(&self, by: Role, id: SockId, length: usize) -> Answer {
        let sock = &self.socks[id];
        if sock.maker.service().is_none() {
            return Answer::Error(self.no_option(id));
        }
        if length < size_of::<u32>() {
            return Answer::Error(EMSGSIZE);
        }
        let record = match &sock.accepted {
            Accepted::With { record, .. } => Some(record),
            _ => sock.carried.as_ref().map(|carried| &carried.now),
        };
        let handle = self.highest(&self.owned_by(by)).map_or(0, |at| self.policy.providers[at].handle);
        Answer::State(record.map_or(State::NotRedirected, |record| state(record, handle)) as u32)
    }

    pub(super) fn set(&mut self, by: Role, id: SockId, blob: u8, damage: Damage) -> Answer {
        let Some(blob) = self.blobs[usize::from(blob)].clone() else { return Answer::Nothing };
        if self.socks[id].maker.service().is_none() {
            return Answer::Error(ENOPROTOOPT);
        }
        let error = self.refusal(by, id, &blob, damage);
        let record = (error == 0).then(|| blob.record.clone());
        let handle = record.as_ref().and_then(|record| record.chain.last()).map_or(0, |hop| hop.0);
        self.told.push(Told::Set { record: record.clone(), handle, error });
        if let Some(record) = record {
            self.end_unsent(id);
            self.socks[id].carried = Some(Carried::new(&record, false));
        }
        Answer::Error(error)
    }

    fn refusal(&self, by: Role, id: SockId, blob: &Blob, damage: Damage) -> i32 {
        match self.tcp_state(id) {
            TcpState::Listening { .. } => return EINVAL,
            TcpState::Closed => {}
            _ => return EISCONN,
        }
        match damage {
            Damage::None => {}
            Damage::Length(length) if usize::from(length) == size_of::<abi::Records>() => {}
            Damage::Length(_) => return EINVAL,
            Damage::Bit(bit) => {
                let byte = usize::from(bit) / 8;
                return match byte {
                    0..4 => EINVAL,
                    8..16 => ESTALE,
                    _ => EBADMSG,
                };
            }
        }
        if self.key - blob.key > 1 {
            return EBADMSG;
        }
        if !blob.record.chain.last().is_some_and(|hop| self.is_newest(by, hop.0)) {
            return EACCES;
        }
        if !matches!(self.socks[id].accepted, Accepted::Not) {
            return EISCONN;
        }
        0
    }

    pub(super) fn original_dst(&self, id: SockId, v6: bool, length: usize) -> Answer {
        let sock = &self.socks[id];
        let remote = match &sock.accepted {
            _ if sock.maker.service().is_none() => return Answer::Error(KERNELS_OWN),
            Accepted::Not => return Answer::Error(KERNELS_OWN),
            Accepted::Lost => None,
            Accepted::With { remote, .. } => Some(*remote),
        };
        let fits = remote.filter(|remote| remote.is_ipv6() == v6);
        if v6 && fits.is_none() && sock.family == Family::V4 {
            return Answer::Error(KERNELS_OWN);
        }
        if length < if v6 { 28 } else { 16 } {
            return Answer::Error(EINVAL);
        }
        fits.map_or(Answer::Error(ENOENT), |remote| Answer::Original(remote, length))
    }

    /// What a service holds in this socket, or the errno of all options but the state.
    fn held(&self, id: SockId) -> Result<(&Record, SocketAddr), i32> {
        let sock = &self.socks[id];
        if sock.maker.service().is_none() {
            return Err(self.no_option(id));
        }
        match &sock.accepted {
            Accepted::Not => Err(ENODATA),
            Accepted::Lost => Err(EIDRM),
            Accepted::With { record, remote, .. } => Ok((record, *remote)),
        }
    }

    /// The kernel's own answer to a question of level `SOL_CARNET`.
    fn no_option(&self, id: SockId) -> i32 {
        if self.socks[id].family == Family::V4 { EOPNOTSUPP } else { ENOPROTOOPT }
    }

    /// What the filter with this id gives.
    pub(super) fn context_of(&self, filter: u32) -> Option<Vec<u8>> {
        let FilterRef::Provider { provider, filter } = self.image.filter(filter)? else { return None };
        match &self.policy.providers[provider].filters[filter].action {
            Action::Redirect { context } => Some(context.clone()),
            _ => None,
        }
    }
}

fn state(record: &Record, handle: u32) -> State {
    match record.chain.iter().position(|hop| hop.0 == handle) {
        _ if record.chain.is_empty() => State::NotRedirected,
        _ if record.chain.last().is_some_and(|hop| hop.0 == handle) => State::RedirectedBySelf,
        Some(_) => State::PreviouslyRedirectedBySelf,
        None => State::RedirectedByOther,
    }
}
