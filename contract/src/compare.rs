//! Two reports side by side: of two systems, or of one system as two users.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::columns::align;

/// The cases that were run in both and answered in two ways.
pub fn table(one: &Path, other: &Path) -> Result<String> {
    let (one, other) = (Answers::read(one)?, Answers::read(other)?);
    let others: BTreeMap<&str, &str> = other.observed().collect();
    let mut lines = vec![["CASE".to_owned(), one.name(), other.name()]];
    let mut both = 0;
    for (id, answer) in one.observed() {
        let Some(others) = others.get(id) else { continue };
        both += 1;
        if answer != *others {
            lines.push([id, answer, others].map(str::to_owned));
        }
    }
    Ok(format!("{}\n{} of the {both} cases which both have run differ\n", align(&lines), lines.len() - 1))
}

/// What is needed of a report.
#[derive(Deserialize)]
struct Answers {
    system: String,
    elevated: Option<bool>,
    cases: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    observed: Option<String>,
}

impl Answers {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a report of this program", file.display()))
    }

    fn name(&self) -> String {
        let elevated = match self.elevated {
            Some(true) => ", ELEVATED",
            Some(false) => ", NOT ELEVATED",
            None => "",
        };
        self.system.to_uppercase() + elevated
    }

    fn observed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cases.iter().filter_map(|case| Some((&case.id[..], case.observed.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_differ_are_told() {
        let report = |elevated: bool, answers: &str| {
            let file = std::env::temp_dir().join(format!("carnet-contract-{}-{elevated}", std::process::id()));
            let text = format!(r#"{{"system": "windows", "elevated": {elevated}, "cases": [{answers}]}}"#);
            fs::write(&file, text).map(|()| file).expect("a file")
        };
        let one = report(
            true,
            r#"{"id": "a", "observed": "ok"}, {"id": "b", "observed": "ok"}, {"id": "c", "observed": null}"#,
        );
        let other = report(
            false,
            r#"{"id": "a", "observed": "ok"}, {"id": "b", "observed": "WSAEACCES"}, {"id": "c", "observed": "ok"}"#,
        );
        let table = table(&one, &other).expect("two reports");
        for file in [one, other] {
            fs::remove_file(file).expect("the test's own");
        }
        let expected = "CASE  WINDOWS, ELEVATED  WINDOWS, NOT ELEVATED\nb     ok                 WSAEACCES\n\n1 of the 2 cases which both have run differ\n";
        assert_eq!(table, expected);
    }
}
