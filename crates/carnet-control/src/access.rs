//! Who may do what.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a caller may do. Each role has the rights of those before it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads what there is: status, policy, providers, flows, events.
    Reader,
    /// Registers providers and their filters, for as long as a connection lasts.
    Registrar,
    /// Changes the policy, registers filters of the host, and ends everything.
    Administrator,
}

/// Who has which role. Root is always an administrator; nobody else has any role by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// Those who are [`Role::Reader`].
    pub read: Identities,
    /// Those who are [`Role::Registrar`].
    pub register: Identities,
    /// Those who are [`Role::Administrator`].
    pub administer: Identities,
}

/// Users, by themselves or by their groups.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identities {
    /// Effective uids.
    pub uids: BTreeSet<u32>,
    /// Effective gids, and supplementary groups where [`Caller::groups`](crate::Caller::groups) has them.
    pub gids: BTreeSet<u32>,
}

/// Replaces the access lists of a server that runs.
#[derive(Clone, Debug)]
pub struct AccessLists(pub(crate) watch::Sender<Access>);

impl Access {
    /// The highest role of a process with these ids.
    pub fn role(&self, uid: u32, gids: &[u32]) -> Option<Role> {
        if uid == ROOT || self.administer.has(uid, gids) {
            Some(Role::Administrator)
        } else if self.register.has(uid, gids) {
            Some(Role::Registrar)
        } else if self.read.has(uid, gids) {
            Some(Role::Reader)
        } else {
            None
        }
    }
}

impl Identities {
    /// Whether one of them is meant.
    pub fn has(&self, uid: u32, gids: &[u32]) -> bool {
        self.uids.contains(&uid) || gids.iter().any(|gid| self.gids.contains(gid))
    }
}

impl AccessLists {
    /// From now on these hold. Streams and sessions of those who may not have them any more are
    /// ended.
    pub fn replace(&self, access: Access) {
        self.0.send_replace(access);
    }
}

impl Role {
    /// The access list that gives it.
    pub(crate) fn list(self) -> &'static str {
        match self {
            Self::Reader => "read",
            Self::Registrar => "register",
            Self::Administrator => "administer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Registrar => "registrar",
            Self::Administrator => "administrator",
        })
    }
}

pub(crate) const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::{Access, Identities, Role};

    #[test]
    fn root_alone_has_a_role_by_default() {
        let access = Access::default();
        assert_eq!(access.role(0, &[1000]), Some(Role::Administrator));
        assert_eq!(access.role(1000, &[0]), None);
        assert_eq!(access.role(65534, &[65534]), None);
    }

    #[test]
    fn the_highest_of_several_roles_counts() {
        let access = Access { read: uids(&[7, 8, 9]), register: uids(&[8, 9]), administer: uids(&[9]) };
        assert_eq!(access.role(7, &[1]), Some(Role::Reader));
        assert_eq!(access.role(8, &[1]), Some(Role::Registrar));
        assert_eq!(access.role(9, &[1]), Some(Role::Administrator));
        assert_eq!(access.role(10, &[1]), None);
    }

    #[test]
    fn a_group_gives_a_role_to_its_users() {
        let access = Access { register: Identities { gids: [5].into(), ..Identities::default() }, ..Access::default() };
        assert_eq!(access.role(1000, &[5]), Some(Role::Registrar));
        assert_eq!(access.role(1000, &[1000, 4, 5]), Some(Role::Registrar), "a supplementary one");
        assert_eq!(access.role(5, &[1000]), None, "5 is a group here");
    }

    fn uids(uids: &[u32]) -> Identities {
        Identities { uids: uids.iter().copied().collect(), ..Identities::default() }
    }
}
