//! What somebody may have meant.

/// The name that is most like the one given, where one is like it at all.
pub fn nearest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A distance is dear where both are long, and so unlike the names there are that nothing is meant.
    if given.len() > LONGEST {
        return None;
    }
    let folded = given.to_lowercase().replace('_', "-");
    let distance = |name: &str| strsim::damerau_levenshtein(&folded, &name.to_lowercase());
    let near = names.into_iter().map(|name| (distance(name), name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= (folded.chars().count().max(name.chars().count()) / 3).max(1)).then_some(name)
}

/// Advice to use the nearest of the names, or any of them.
pub(super) fn instead(given: &str, names: &[&str]) -> String {
    match nearest(given, names.iter().copied()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => one_of(given, names),
    }
}

/// Advice that has all names, the nearest first.
pub(super) fn one_of(given: &str, names: &[&str]) -> String {
    let near = nearest(given, names.iter().copied());
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    let all = match &quoted[..] {
        [] => return String::new(),
        [only] => format!("write {only}"),
        [first @ .., last] => format!("write {} or {last}", first.join(", ")),
    };
    match near {
        Some(near) if names.len() > 1 => format!("did you mean {near:?}? Else {all}"),
        _ => all,
    }
}

const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let names = ["rank", "records", "on-dead", "remote-port"];
        for (given, expected) in [
            ("ranke", Some("rank")),
            ("on_dead", Some("on-dead")),
            ("remote-ports", Some("remote-port")),
            ("Records", Some("records")),
            ("weight", None),
            ("", None),
            ("xy", None),
        ] {
            assert_eq!(nearest(given, names), expected, "{given}");
        }
        assert_eq!(nearest(&"rank".repeat(1000), names), None);
        assert_eq!(nearest("a", []), None);
    }

    #[test]
    fn advice_has_the_nearest_first() {
        assert_eq!(instead("rnak", &["name", "rank"]), "did you mean \"rank\"?");
        assert_eq!(instead("weight", &["name", "rank"]), "write \"name\" or \"rank\"");
        assert_eq!(one_of("opne", &["open", "closed"]), "did you mean \"open\"? Else write \"open\" or \"closed\"");
        assert_eq!(one_of("x", &["open"]), "write \"open\"");
    }
}
