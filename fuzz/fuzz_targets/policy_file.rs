//! Policy files: any text is a policy that compiles, or has mistakes whose places are in it.
#![no_main]

use std::io;
use std::path::Path;

use carnet_policy::file::{Finding, Loader, Nowhere, PolicyFile};

/// The same few lines for every file.
struct Folder;

impl Loader for Folder {
    fn load(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("ports") => Ok("443\n8000-8999 # some\r\nx\n".into()),
            Some("prefixes") => Ok("10.0.0.0/8\n::1\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = PolicyFile::text("policy.toml", bytes.to_vec()) else { return };
    match PolicyFile::read("policy.toml", &text, &Folder, &Nowhere) {
        Ok((file, resolved)) => {
            assert_within(&text, &file.warnings(&resolved, &Nowhere));
            assert_within(&text, &resolved.notes);
            assert!(resolved.policy.validate().is_ok());
        }
        Err(mistakes) => {
            assert!(!mistakes.findings().is_empty());
            assert_within(&text, mistakes.findings());
        }
    }
});

fn assert_within(text: &str, findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.place.file == "policy.toml") {
        assert!(text.get(finding.place.span.clone()).is_some(), "{finding:?}");
        assert!(finding.place.line <= text.split('\n').count() && !finding.to_string().is_empty());
    }
}
