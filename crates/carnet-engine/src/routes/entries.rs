//! The fewest entries that say the same, and fewer that say less.

#[cfg(test)]
use super::prefix::Prefix;
use super::table::Entry;

/// Leaves out what the next shorter prefix says already; what none says anything of can be reached. For sorted entries.
pub fn minimal(entries: &[Entry]) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    let mut covering: Vec<Entry> = Vec::new();
    for &(prefix, errno) in entries {
        while covering.last().is_some_and(|(cover, _)| !cover.covers(prefix)) {
            covering.pop();
        }
        if covering.last().map_or(0, |&(_, errno)| errno) != errno {
            kept.push((prefix, errno));
            covering.push((prefix, errno));
        }
    }
    kept
}

/// At most `room` entries, minimal. Where there are more, the longest prefixes are looked at together, and are
/// reachable if one of them is: `true` tells that this was done.
pub fn fitting(entries: &[Entry], room: usize) -> (Vec<Entry>, bool) {
    let all = minimal(entries);
    if all.len() <= room {
        return (all, false);
    }
    let (mut fits, mut fits_not) = ((0, coarse(&all, 0)), 128);
    while fits_not - fits.0 > 1 {
        let middle = (fits.0 + fits_not) / 2;
        let entries = coarse(&all, middle);
        if entries.len() <= room {
            fits = (middle, entries);
        } else {
            fits_not = middle;
        }
    }
    (fits.1, true)
}

/// With no prefix that is longer than `length`.
fn coarse(entries: &[Entry], length: u8) -> Vec<Entry> {
    let mut shorter: Vec<Entry> = Vec::new();
    for &(prefix, errno) in entries {
        if prefix.length() > length && errno != 0 {
            continue;
        }
        let prefix = prefix.shortened(length);
        match shorter.last_mut() {
            // All that was shortened to one prefix is next to each other.
            Some((last, of_last)) if *last == prefix => *of_last = errno.min(*of_last),
            _ => shorter.push((prefix, errno)),
        }
    }
    minimal(&shorter)
}

/// What the entries say of an address, as the kernel's map of longest prefixes finds it.
#[cfg(test)]
pub fn lookup(entries: &[Entry], address: Prefix) -> u32 {
    let covering = entries.iter().filter(|(prefix, _)| prefix.covers(address));
    covering.max_by_key(|(prefix, _)| prefix.length()).map_or(0, |&(_, errno)| errno)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse::<IpAddr>().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn a_full_table_with_a_default_route_is_no_entry() {
        let networks = (0..4096_u32).map(|n| (Prefix::new(IpAddr::from((n << 12).to_be_bytes()), 20), 0));
        let entries: Vec<Entry> = [(prefix("0.0.0.0/0"), 0)].into_iter().chain(networks).collect();
        assert_eq!(minimal(&entries), []);
    }

    #[test]
    fn what_a_shorter_prefix_says_is_left_out() {
        let entries = [("::/0", 101), ("0.0.0.0/0", 101), ("10.0.0.0/8", 0), ("10.1.0.0/16", 0), ("10.1.2.0/24", 113)];
        let entries = entries.map(|(text, errno)| (prefix(text), errno));
        let kept = [entries[0], entries[2], entries[4]];
        assert_eq!(minimal(&entries), kept);
    }

    #[test]
    fn more_than_fit_become_reachable() {
        // Every second /20 has a way, and nothing else.
        let networks = (0..1024_u32).map(|n| (Prefix::new(IpAddr::from((n << 13).to_be_bytes()), 20), 0));
        let entries: Vec<Entry> = [(prefix("0.0.0.0/0"), 101)].into_iter().chain(networks).collect();
        let (all, less) = fitting(&entries, 1025);
        assert_eq!((all.len(), less), (1025, false));

        let (few, less) = fitting(&entries, 100);
        assert!(less && few.len() <= 100, "{}", few.len());
        let says = |address: &str| lookup(&few, prefix(address));
        assert_eq!(says("0.0.16.1/32"), 0, "a neighbour of one with a way");
        assert_eq!(says("203.0.113.1/32"), 101, "far from every way");

        assert_eq!(fitting(&entries, 0).0, []);
    }

    /// Prefixes in a space so small that they meet.
    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let prefix =
            (any::<u8>(), 0..=8_u8).prop_map(|(byte, length)| Prefix::new(IpAddr::from([byte, 0, 0, 0]), length));
        vec((prefix, prop_oneof![Just(0), Just(101), Just(113)]), 0..30).prop_map(|mut entries| {
            entries.sort();
            entries.dedup_by_key(|(prefix, _)| *prefix);
            entries
        })
    }

    fn addresses() -> impl Iterator<Item = Prefix> {
        (0..=255_u8).map(|byte| Prefix::new(IpAddr::from([byte, 0, 0, 1]), 32))
    }

    proptest! {
        #[test]
        fn minimal_entries_say_the_same(entries in entries()) {
            let kept = minimal(&entries);
            for address in addresses() {
                prop_assert_eq!(lookup(&kept, address), lookup(&entries, address));
            }
        }

        #[test]
        fn none_of_the_minimal_entries_can_go(entries in entries()) {
            let kept = minimal(&entries);
            for place in 0..kept.len() {
                let mut fewer = kept.clone();
                let (prefix, errno) = fewer.remove(place);
                let cover = fewer.iter().filter(|(cover, _)| cover.covers(prefix)).max_by_key(|(cover, _)| cover.length());
                prop_assert_ne!(cover.map_or(0, |&(_, errno)| errno), errno);
            }
        }

        #[test]
        fn fewer_entries_refuse_nothing_more(entries in entries(), room in 0..20_usize) {
            let (few, _) = fitting(&entries, room);
            prop_assert!(few.len() <= room);
            for address in addresses() {
                prop_assert!(lookup(&few, address) == 0 || lookup(&entries, address) != 0);
            }
        }
    }
}
