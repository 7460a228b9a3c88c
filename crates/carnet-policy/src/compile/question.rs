//! A question in the kernel program's words, for comparing the two evaluators.

use carnet_abi as abi;

use super::Image;
use crate::{Decision, Identity, Question, Who};

impl Image {
    /// The question as the kernel program is asked it, with no answer yet.
    pub fn question(&self, question: &Question, slot: u32) -> abi::Asked {
        let (knowledge, identities) = match question.who {
            Who::Known(origin) => (abi::KNOWN, [Some(origin), None]),
            Who::Strayed { origin, own } => (abi::STRAYED, [Some(origin), Some(own)]),
            Who::Ambiguous { origin, own: None } => (abi::AMBIGUOUS, [Some(origin), None]),
            Who::Ambiguous { origin, own } => (abi::AMBIGUOUS | abi::STRAYED, [Some(origin), own]),
        };
        let mut asked = abi::Asked {
            question: abi::Question {
                remote: question.remote.into(),
                slot: slot as u16,
                protocol: question.protocol as u16,
                floor: question.record.map_or(-1, |record| i32::from(record.floor)),
                dialer: index_in(&self.providers, question.dialer),
                listener: index_in(&self.providers, question.listener),
                has_record: question.record.is_some().into(),
                knowledge: knowledge as u16,
                provider: abi::NONE,
                rule: abi::NONE,
                ..Default::default()
            },
            depth: question.record.map_or(0, |record| record.depth),
            origin: identities.map(|identity| identity.map_or_else(Default::default, |identity| origin(&identity))),
            line: identities.map(|identity| identity.unwrap_or_default().cgroup.0),
            ..Default::default()
        };
        let dead = (0..self.providers.len()).filter(|&index| question.dead.contains(self.providers[index]));
        dead.for_each(|index| asked.dead[index / 64] |= 1 << (index % 64));
        asked
    }

    /// `asked` with `decision` filled in as the kernel program would answer it.
    pub fn answer(&self, asked: abi::Asked, decision: &Decision) -> abi::Asked {
        let question = abi::Question {
            verdict: decision.verdict as u16,
            reason: decision.reason as u16,
            provider: index_in(&self.providers, decision.provider),
            rule: index_in(&self.filters, decision.filter),
            ..asked.question
        };
        abi::Asked { question, ..asked }
    }
}

fn origin(identity: &Identity) -> abi::Origin {
    abi::Origin {
        uid: identity.uid,
        gid: identity.gid,
        exe_dev: identity.exe.dev,
        exe_ino: identity.exe.ino,
        cgroup_id: identity.cgroup.id().unwrap_or(0),
        netns_cookie: identity.netns,
        ..Default::default()
    }
}

fn index_in<T: PartialEq>(items: &[T], item: Option<T>) -> u32 {
    item.and_then(|item| items.iter().position(|other| *other == item)).map_or(abi::NONE, |index| index as u32)
}
