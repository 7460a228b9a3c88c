//! Who makes a connection, and sets of providers.

use carnet_abi::MAX_PROVIDERS;

use crate::{Executable, Line};

/// Who makes a connection: conditions on identity hold for the application it is for, as far as that is known.
///
/// A filter that lets through by identity, a host's that permits or a provider's that skips, holds for [`Who::Known`]
/// alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Who {
    /// An application, or a service in its name on the way to the application's destination.
    Known(Identity),
    /// A service in the name of an application, to another destination than the application's. What holds for the
    /// application or for the service holds.
    Strayed {
        /// The application.
        origin: Identity,
        /// The service that dials now.
        own: Identity,
    },
    /// A service in the name of one of several applications, or after a service that has strayed: somebody has a part in it
    /// of whom nothing is known. Of a provider's filters all hold that redirect or block by identity, since they may be about
    /// anybody; of the host's those that hold for `origin` or `own`: they have judged the others before.
    Ambiguous {
        /// The service that has several flows, or the application whose flow has strayed.
        origin: Identity,
        /// The service that dials, where it strays now.
        own: Option<Identity>,
    },
}

/// What conditions can say of who connects.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Identity {
    /// Real uid.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
    /// The running executable; both 0 for none.
    pub exe: Executable,
    /// Its cgroup.
    pub cgroup: Line,
    /// Cookie of the network namespace of its socket.
    pub netns: u64,
}

/// A set of providers, by their position in [`Policy::providers`](crate::Policy::providers). Positions of
/// [`MAX_PROVIDERS`] and above are in none.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Providers([u64; MAX_PROVIDERS.div_ceil(64)]);

impl Providers {
    /// No provider.
    pub const NONE: Self = Self([0; _]);

    /// Whether the provider is one of them.
    pub fn contains(&self, provider: usize) -> bool {
        provider < MAX_PROVIDERS && self.0[provider / 64] >> (provider % 64) & 1 == 1
    }

    /// Puts a provider in.
    pub fn insert(&mut self, provider: usize) {
        if provider < MAX_PROVIDERS {
            self.0[provider / 64] |= 1 << (provider % 64);
        }
    }
}

impl FromIterator<usize> for Providers {
    fn from_iter<I: IntoIterator<Item = usize>>(providers: I) -> Self {
        let mut all = Self::NONE;
        providers.into_iter().for_each(|provider| all.insert(provider));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let providers: Providers = [0, 63, 64, 254, 255, 10_000].into_iter().collect();
        let found: Vec<usize> = (0..20_000).filter(|&provider| providers.contains(provider)).collect();
        assert_eq!(found, [0, 63, 64, 254]);
    }
}
