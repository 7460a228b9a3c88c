//! How large an image is.

use carnet_abi as abi;

use super::Image;

/// Memory that an image takes in the kernel, in bytes.
///
/// The engine keeps two images, so that one can be written while the other is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bytes {
    /// The head, the same for every policy.
    pub head: usize,
    /// What each filter does: 16 bytes per filter.
    pub rules: usize,
    /// The contexts of filters that have one: 2,056 bytes each.
    pub contexts: usize,
    /// Sets of filters: 520 bytes for each set of filters that some value matches, in any dimension.
    pub classes: usize,
    /// Ranges of IPv4 addresses: 6.6 bytes each. A prefix makes one or two.
    pub v4: usize,
    /// Ranges of IPv6 addresses: 20.3 bytes each.
    pub v6: usize,
    /// Ranges of ports and of users and groups, 6.6 bytes each; and users, groups, executables, cgroups and namespaces by
    /// themselves, about 72 bytes each.
    pub others: usize,
}

impl Image {
    /// How large the image is.
    pub fn bytes(&self) -> Bytes {
        let v4 = self.nodes_of(abi::BY_V4, &[abi::BY_PORT, abi::BY_UID, abi::BY_GID], self.nodes32.len());
        let nodes32 = |count: usize| count * size_of::<abi::Node32>();
        Bytes {
            head: size_of::<abi::Policy>(),
            rules: size_of_val(&self.rules[..]),
            contexts: self.contexts.len() * size_of::<abi::Context>(),
            classes: size_of_val(&self.classes[..]),
            v4: nodes32(v4),
            v6: size_of_val(&self.nodes128[..]),
            others: nodes32(self.nodes32.len() - v4) + self.values.len() * VALUE,
        }
    }

    /// Nodes of the first tree of its kind: all before the next tree.
    fn nodes_of(&self, dimension: usize, later: &[usize], all: usize) -> usize {
        let has = |dimension: usize| self.policy.dimensions >> dimension & 1 == 1;
        if !has(dimension) {
            return 0;
        }
        let next = later.iter().find(|&&later| has(later));
        next.map_or(all, |&next| self.policy.tree[next].level[0] as usize)
    }
}

impl Bytes {
    /// All of it.
    pub fn total(&self) -> usize {
        self.head + self.rules + self.contexts + self.classes + self.v4 + self.v6 + self.others
    }
}

/// An entry of the kernel's hash table, about.
const VALUE: usize = 72;
