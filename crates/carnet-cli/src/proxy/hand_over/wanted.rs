//! Which of the listeners that come from the process before are wanted, and what has to be bound besides.

use std::net::SocketAddr;

/// Listeners, sorted out.
#[derive(Debug, Eq, PartialEq)]
pub struct Sorted<L> {
    /// Those at addresses that are wanted.
    pub kept: Vec<L>,
    /// Nobody wants them.
    pub unwanted: Vec<L>,
    /// Addresses at which there is none.
    pub missing: Vec<SocketAddr>,
}

/// By what is asked for with `--listen`. Several listeners may have one address (`SO_REUSEPORT`): all are kept, for
/// connections wait in each. Port 0, "any free one", is any at that address which is not asked for by its number.
pub fn sort<L>(taken: Vec<L>, wanted: &[SocketAddr], address: impl Fn(&L) -> SocketAddr) -> Sorted<L> {
    let mut sorted = Sorted { kept: Vec::new(), unwanted: taken, missing: Vec::new() };
    let (any_port, named): (Vec<SocketAddr>, Vec<SocketAddr>) = wanted.iter().partition(|wanted| wanted.port() == 0);
    for wanted in named {
        sorted.keep(wanted, &address);
    }
    for wanted in any_port {
        let is_at = |listener: &&L| address(listener).ip() == wanted.ip();
        match sorted.unwanted.iter().find(is_at).map(&address) {
            Some(there) => sorted.keep(there, &address),
            None => sorted.missing.push(wanted),
        }
    }
    sorted
}

impl<L> Sorted<L> {
    fn keep(&mut self, wanted: SocketAddr, address: impl Fn(&L) -> SocketAddr) {
        let before = self.kept.len();
        self.kept.extend(self.unwanted.extract_if(.., |listener| is_same(address(listener), wanted)));
        if self.kept.len() == before {
            self.missing.push(wanted);
        }
    }
}

/// An IPv6 address may have a flow label, which says nothing of where it is.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address: SocketAddr| match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    a.ip() == b.ip() && a.port() == b.port() && scope(a) == scope(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn check(taken: &[&str], wanted: &[&str], kept: &[&str], unwanted: &[&str], missing: &[&str]) {
        let sorted = sort(addresses(taken), &addresses(wanted), |address| *address);
        let expected = Sorted { kept: addresses(kept), unwanted: addresses(unwanted), missing: addresses(missing) };
        assert_eq!(sorted, expected, "{taken:?}, {wanted:?}");
    }

    #[test]
    fn listeners_are_sorted_by_what_is_wanted() {
        let [a, b, c, six] = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.2:1", "[::1]:1"];
        check(&[], &[a], &[], &[], &[a]);
        check(&[a, six], &[six, a], &[six, a], &[], &[]);
        check(&[a, b, c], &[c, six], &[c], &[a, b], &[six]);
        // All that share one address.
        check(&[a, b, a, a], &[a], &[a, a, a], &[b], &[]);
        // Twice the same: the second is bound, and says that the address is in use.
        check(&[a], &[a, a], &[a], &[], &[a]);
    }

    #[test]
    fn any_port_is_the_one_that_there_was() {
        check(
            &["127.0.0.1:7", "127.0.0.1:7", "127.0.0.1:8"],
            &["127.0.0.1:0"],
            &["127.0.0.1:7", "127.0.0.1:7"],
            &["127.0.0.1:8"],
            &[],
        );
        check(&["127.0.0.1:7"], &["127.0.0.1:0", "127.0.0.1:7"], &["127.0.0.1:7"], &[], &["127.0.0.1:0"]);
        check(&["[::1]:7"], &["127.0.0.1:0"], &[], &["[::1]:7"], &["127.0.0.1:0"]);
    }
}
