use std::fs;
use std::os::unix::fs::MetadataExt;

use carnet_e2e::programs::Scratch;
use nix::sys::signal::Signal;

use crate::site::Site;

/// Where rules say `tap`, only what they say it of is recorded. What a file looks like is `foreign::tap`'s to test.
#[test]
fn what_a_rule_says_is_recorded() {
    let scratch = Scratch::new();
    let file = scratch.file("flows.pcapng");
    let rules = "[[rule]]\nname = \"seen.example\"\naction = \"allow\"\ntap = true\n";
    Site::with(rules, &["--tap", file.to_str().unwrap()], |mut site| {
        for host in ["seen.example", "unseen.example"] {
            assert!(site.get(host).starts_with("HTTP/1.1 200 "));
            site.said("flow");
        }
        site.signal(Signal::SIGTERM);
        site.said("ended");
        assert_eq!(site.proxy.end().code, 0);
    });
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).unwrap();
    let has = |words: &str| bytes.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(has("Host: seen.example") && has("HTTP/1.1 200 OK"));
    assert!(!has("unseen.example"));
}
