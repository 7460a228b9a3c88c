//! YARA-X itself.

use std::{fs, path::PathBuf};

use super::*;
use crate::scan::{Finding, YaraError, YaraRules};

/// The file that antivirus programs are tested with. In two parts, or this source would be one.
fn eicar() -> String {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

/// A folder with files of rules.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &tempfile::TempDir) -> Result<YaraRules, YaraError> {
    YaraRules::load(&[folder.path().to_owned()])
}

const EICAR: &str = r#"
import "hash"
rule eicar : test harmless {
    strings:
        $a = "$EICAR-STANDARD-"
        $b = /ANTIVIRUS-TEST-FILE!\$H\+H\*/
    condition:
        all of them and filesize < 1KB and hash.md5(0, filesize) == "44d88612fea8a8f36de82e1278abb02f"
}
"#;

#[tokio::test]
async fn the_file_that_antivirus_programs_are_tested_with_is_found() {
    let rules =
        folder(&[("eicar.yar", EICAR), ("other.yara", "rule other { condition: filesize == 0 }"), ("readme", "{")]);
    let rules_found = load(&rules).unwrap();
    assert_eq!((rules_found.count(), rules_found.warnings().len()), (2, 0), "{:?}", rules_found.warnings());
    let (scanner, told) = scanner(rules_found, ScanOptions::default());
    let passed = send(&scanner, None, eicar().as_bytes().chunks(9)).await;
    assert_eq!(passed, Passed { bytes: Vec::new(), blocked: Some("YARA rule eicar matches".into()) });
    let namespace = rules.path().join("eicar.yar").display().to_string();
    let tags = vec!["test".into(), "harmless".into()];
    assert_eq!(told.lock().unwrap()[0].finding, Finding::Match(Match { rule: "eicar".into(), namespace, tags }));
    let longer = format!("{}.", eicar());
    assert_eq!(send(&scanner, None, [longer.as_bytes()]).await, pass(longer));
}

#[test]
fn mistakes_are_told_all_at_once_with_their_places() {
    let rules = folder(&[
        ("a.yar", "rule a {\n condition:\n  nothing\n}"),
        ("b.yar", "rule b { condition: true }"),
        ("c.yar", "rule c {\n strings: $a = /(/\n condition: $a }"),
    ]);
    let YaraError::Mistakes { mistakes } = load(&rules).unwrap_err() else { panic!() };
    let place = |name: &str, place: &str| format!("{}:{place}", rules.path().join(name).display());
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes[0].contains(&place("a.yar", "3:3")) && mistakes[0].contains("nothing"), "{}", mistakes[0]);
    assert!(mistakes[1].contains(&place("c.yar", "2:")), "{}", mistakes[1]);
}

#[test]
fn what_is_not_there_is_told() {
    let nothing = folder(&[("readme", "")]);
    assert!(matches!(load(&nothing), Err(YaraError::Empty { path }) if path == nothing.path()));
    let missing = PathBuf::from("/nonexistent/rules.yar");
    assert!(
        matches!(YaraRules::load(std::slice::from_ref(&missing)), Err(YaraError::Read { path, .. }) if path == missing)
    );
}

#[test]
fn files_may_use_one_name_and_include_others() {
    let rules = folder(&[
        ("a.yar", "rule same { condition: true }"),
        ("b.yar", "include \"b.inc\"\nrule other { condition: same }"),
        ("b.inc", "rule same { condition: true }"),
    ]);
    assert_eq!(load(&rules).unwrap().count(), 3);
}

#[test]
fn a_scan_that_takes_too_long_is_ended() {
    let text =
        "rule slow { condition: for any i in (0..1000000000): (for any j in (0..1000000000): (uint8(i) + j == -1)) }";
    let rules = load(&folder(&[("slow.yar", text)])).unwrap();
    assert_eq!(rules.matches(b"data", Duration::from_secs(1)), Err(Unscanned::Time));
}
