//! `docs/attacks.md` against the tests: no row without a test that exists, no test of this program without a row.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use carnet_e2e::programs::succeed;

/// Sections that must be there, each with at least this many rows.
const FAMILIES: [(&str, usize); 13] = [
    ("Records", 12),
    ("Squatted ports", 8),
    ("Dialling a service", 4),
    ("Sockets from elsewhere", 6),
    ("Cgroups and namespaces", 8),
    ("Fork, exec and races", 5),
    ("Ways to connect", 6),
    ("Kinds of sockets", 6),
    ("Socket options", 6),
    ("Addresses", 3),
    ("One user against others", 5),
    ("The control API", 12),
    (UNSTOPPED, 12),
];

/// Here a row may do without a test: what it names is not Carnet's.
const UNSTOPPED: &str = "What Carnet cannot stop";

#[test]
fn every_attack_has_a_test_and_every_test_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in it");
    let document = fs::read_to_string(root.join("docs/attacks.md")).expect("docs/attacks.md");
    let existing = tests_in(&root.join("e2e/tests"));
    let own = own_tests();
    assert!(existing.len() > 200 && own.len() > 40, "{} tests in sources, {} here", existing.len(), own.len());
    assert_eq!(own.difference(&existing).next(), None, "a test of this program that the sources do not have");
    let mistakes = mistakes(&document, &FAMILIES, &existing, &own);
    assert!(mistakes.is_empty(), "docs/attacks.md:\n{}", mistakes.join("\n"));
}

#[test]
fn each_kind_of_mistake_is_found() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let document = "\
## One
| attack | who | what happens | test |
| --- | --- | --- | --- |
| a | user | `EACCES` | `there::it_is` |
| b | user | nothing | `there::it_is_not` |
| c | user | nothing | `there` |
| d | user | nothing | |
## What Carnet cannot stop
| attack | who | why | test |
| --- | --- | --- | --- |
| e | root | it is root | |
| f | root | it is root | `attacks::known` |
| g | root |
";
    let families = [("One", 4), (UNSTOPPED, 3), ("Two", 1)];
    let found = mistakes(
        document,
        &families,
        &names(&["there::it_is", "attacks::known"]),
        &names(&["attacks::known", "attacks::forgotten"]),
    );
    let expected = [
        "line 5: there is no test there::it_is_not",
        "line 6: there is no test there",
        "line 7: no test",
        "line 13: not four cells",
        "attacks::forgotten has no row",
        "section \"Two\": 0 rows, and there must be 1",
    ];
    assert_eq!(found, expected);
    assert_eq!(mistakes("", &[], &names(&[]), &names(&[])), ["no rows at all"]);
}

fn mistakes(
    document: &str,
    families: &[(&str, usize)],
    existing: &BTreeSet<String>,
    own: &BTreeSet<String>,
) -> Vec<String> {
    let (mut found, mut named, mut section, mut sections) = (Vec::new(), BTreeSet::new(), "", Vec::new());
    for (number, line) in (1..).zip(document.lines()) {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let Some(row) = line.strip_prefix('|') else { continue };
        let cells: Vec<_> = row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "attack" || cells[0].starts_with("---") {
            continue;
        }
        sections.push(section);
        let [_, _, _, tests] = cells[..] else {
            found.push(format!("line {number}: not four cells"));
            continue;
        };
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() && section != UNSTOPPED {
            found.push(format!("line {number}: no test"));
        }
        for test in tests {
            if !existing.contains(test) {
                found.push(format!("line {number}: there is no test {test}"));
            }
            named.insert(test.to_owned());
        }
    }
    found.extend(own.difference(&named).map(|test| format!("{test} has no row")));
    for (family, least) in families {
        let rows = sections.iter().filter(|section| *section == family).count();
        if rows < *least {
            found.push(format!("section \"{family}\": {rows} rows, and there must be {least}"));
        }
    }
    if sections.is_empty() {
        found.push("no rows at all".into());
    }
    found
}

/// Those of this program, but for this file's, as it says itself.
fn own_tests() -> BTreeSet<String> {
    let list = succeed(Command::new(env::current_exe().unwrap()).args(["--list", "--format", "terse"]));
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names.filter(|name| !name.starts_with("catalogue::")).map(|name| format!("attacks::{name}")).collect()
}

/// What the sources of the end-to-end tests mark as tests: `program::module::name`.
fn tests_in(folder: &Path) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in sources(folder) {
        let path = file.strip_prefix(folder).unwrap().with_extension("");
        let mut parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        parts.pop_if(|part| *part == "main");
        let module = parts.join("::");
        let text = fs::read_to_string(&file).unwrap();
        for test in text.split("#[test]").skip(1) {
            let name = test.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a function");
            tests.insert(format!("{module}::{name}"));
        }
    }
    tests
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    folders.iter().flat_map(|folder| sources(folder)).chain(files).collect()
}
