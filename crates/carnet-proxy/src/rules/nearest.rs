//! What somebody may have meant.

/// Advice to use the nearest of the names where one is near, else any of them.
pub(super) fn instead<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if let Some(near) = nearest(given, &names) {
        return format!("did you mean {near:?}?");
    }
    let quoted: Vec<_> = names.iter().take(MOST).map(|name| format!("{name:?}")).collect();
    match &quoted[..] {
        [] => String::new(),
        [only] => format!("write {only}"),
        [first @ .., last] => format!("write {} or {last}", first.join(", ")),
    }
}

fn nearest<'n>(given: &str, names: &[&'n str]) -> Option<&'n str> {
    // A distance is dear where a text is long, and then nothing is meant.
    if given.len() > LONGEST {
        return None;
    }
    let folded = given.to_lowercase().replace('_', "-");
    let near = names.iter().map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase()), *name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= (folded.chars().count().max(name.chars().count()) / 3).max(1)).then_some(name)
}

const LONGEST: usize = 64;

/// Names that are listed.
const MOST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let names = ["name", "ports", "cgroup", "password-file"];
        for (given, expected) in [
            ("names", "did you mean \"name\"?"),
            ("Port", "did you mean \"ports\"?"),
            ("password_file", "did you mean \"password-file\"?"),
            ("weight", "write \"name\", \"ports\", \"cgroup\" or \"password-file\""),
        ] {
            assert_eq!(instead(given, names), expected, "{given}");
        }
        assert_eq!(instead(&"name".repeat(1000), ["name"]), "write \"name\"");
        assert_eq!(instead("a", []), "");
    }
}
