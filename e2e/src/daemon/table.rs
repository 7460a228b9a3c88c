use std::net::SocketAddr;

use carnet_engine::cgroup::Cgroup;

use super::quoted;
use crate::Ground;

/// A provider's table in a policy file. Aware, unless [`Table::with`] says otherwise.
#[derive(Clone, Debug)]
pub struct Table(String);

impl Table {
    /// Its service is in this cgroup and listens there.
    pub fn new(name: &str, rank: u16, ground: &Ground, service: &Cgroup, listen: &[SocketAddr]) -> Self {
        Self::owned_by(name, rank, &ground.name_of(service), listen)
    }

    /// The same by the cgroup's name, for one that may not be there.
    pub fn owned_by(name: &str, rank: u16, cgroup: &str, listen: &[SocketAddr]) -> Self {
        let listen = quoted(listen);
        let owner = format!("owner = {{ cgroup = \"{cgroup}\" }}");
        Self(format!("[[provider]]\nname = \"{name}\"\nrank = {rank}\nlisten = {listen}\n{owner}\n"))
    }

    /// With one more line, as `on-dead = "open"`.
    pub fn with(self, line: &str) -> Self {
        Self(self.0 + line + "\n")
    }

    /// Its text, with one filter more that redirects what matches. May be followed by other tables.
    pub fn redirecting(&self, filter: &str, conditions: &str) -> String {
        self.filtering(filter, conditions, "action = \"redirect\"")
    }

    /// The same with a context.
    pub fn redirecting_with(&self, filter: &str, conditions: &str, context: &str) -> String {
        self.filtering(filter, conditions, &format!("action = \"redirect\"\ncontext = \"{context}\""))
    }

    /// Its text with one filter. What it does, and all else, are lines.
    pub fn filtering(&self, filter: &str, conditions: &str, lines: &str) -> String {
        format!("{}\n[[provider.filter]]\nname = \"{filter}\"\nmatch = {{ {conditions} }}\n{lines}\n\n", self.0)
    }
}
