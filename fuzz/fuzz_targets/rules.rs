//! Rules files: any text is rules that decide, or has mistakes whose places are in it.
#![no_main]

use std::{io, path::Path};

use carnet_proxy::rules::{Facts, Host, Origin, Rules};

/// The same few names for every file, and one user.
struct Folder;

impl Host for Folder {
    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("names") => Ok("example.org\n*.example.net # all\nx..y\n".into()),
            Some("good") => Ok("example.org\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn uid(&self, user: &str) -> io::Result<Option<u32>> {
        Ok((user == "alice").then_some(1000))
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match Rules::parse(text, Path::new("rules.toml"), &Folder) {
        Ok(rules) => assert_decides(&rules, text),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes.iter().filter(|mistake| mistake.place.file == "rules.toml") {
                assert!(text.get(mistake.place.span.clone()).is_some(), "{mistake:?}");
                assert!(mistake.place.line <= text.split('\n').count() && !mistake.to_string().is_empty());
            }
        }
    }
});

/// A decision without the client's bytes is the one with them, whatever they are; the text gives names to ask for.
fn assert_decides(rules: &Rules, text: &str) {
    let origin = Origin { uid: Some(1000), exe: Some(Path::new("/usr/bin/curl")), cgroup: Some("/user.slice") };
    for (port, name) in
        [443, 80, 22].into_iter().flat_map(|port| text.split('"').map(move |name| (port, name))).take(64)
    {
        let destination = ([192, 0, 2, 7], port).into();
        let facts = Facts { name: Some(name), protocol: None, alpn: &[], ja4: None, ech: false, destination, origin };
        let index = rules.decide(&facts).rule.map(|rule| rule.index);
        if let Some(early) = rules.decide_without_name(destination, &origin) {
            assert_eq!(early.rule.map(|rule| rule.index), index, "{name:?}");
        }
    }
}
