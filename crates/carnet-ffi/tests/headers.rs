//! The committed headers are what cbindgen makes of the source. `CARNET_BLESS=1` writes them.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{collections::BTreeMap, env, fs, path::Path};

use cbindgen::{Braces, Builder, Config, DocumentationStyle, Language, SortKey, Style};

#[test]
fn carnet_h_is_what_the_source_says() {
    let version: Vec<_> = env!("CARGO_PKG_VERSION").split('.').collect();
    let preamble = format!(
        "\n/* Of this header; that of the library which is running: carnet_version(). */\n\
         #define CARNET_VERSION \"{}\"\n#define CARNET_VERSION_MAJOR {}\n#define CARNET_VERSION_MINOR {}",
        version.join("."),
        version[0],
        version[1]
    );
    let header = Header {
        file: "carnet.h",
        guard: "CARNET_H",
        about: CARNET_H,
        preamble: Some(preamble),
        sources: &["error.rs", "socket.rs", "query.rs", "dial.rs", "flow.rs", "flow/origin.rs"],
    };
    header.check();
}

#[test]
fn carnet_wsa_h_is_what_the_source_says() {
    let header = Header {
        file: "carnet_wsa.h",
        guard: "CARNET_WSA_H",
        about: CARNET_WSA_H,
        preamble: None,
        sources: &["wsa.rs"],
    };
    header.check();
}

/// A function whose body is not one `boundary!` would let a panic into C.
#[test]
fn every_exported_function_is_behind_the_boundary() {
    let mut exported = 0;
    for (file, source) in sources(Path::new("src")) {
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (place, _) in source.match_indices("extern \"C\" fn ") {
            exported += 1;
            let function = &source[place + "extern \"C\" fn ".len()..];
            let name = function.split('(').next().unwrap();
            let body = function.split_once(" {\n").unwrap().1;
            let first = body.lines().map(str::trim).find(|line| !line.starts_with("//")).unwrap();
            assert!(first.starts_with("boundary!("), "{name} in {file} begins with {first}");
            let end = body.split_once("\n}\n").unwrap().0;
            assert!(end.ends_with("})"), "{name} in {file} does something behind its boundary: {end}");
            let before = source[..place].trim_end_matches("unsafe ");
            assert!(before.ends_with("#[unsafe(no_mangle)]\npub "), "{name} in {file} is not exported");
            assert!(name.starts_with("carnet_"), "{name} in {file} is not in our name space");
        }
    }
    assert!(exported > 30, "{exported} functions, so this test looks at the wrong files");
}

/// The numbers of `carnet_winsock.h` for Linux are those of the library, which are compared with Windows' own.
#[test]
fn carnet_winsock_h_has_the_librarys_numbers() {
    macro_rules! winsock_numbers {
        ($($name:ident)*) => { [$((stringify!($name), carnet::winsock::$name as u32)),*] };
    }
    let numbers = winsock_numbers! {
        SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
        SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS SIO_FLUSH WSA_FLAG_OVERLAPPED WSA_FLAG_NO_HANDLE_INHERIT
        WSA_INVALID_HANDLE WSA_NOT_ENOUGH_MEMORY WSA_INVALID_PARAMETER WSA_OPERATION_ABORTED WSA_IO_INCOMPLETE
        WSA_IO_PENDING WSAEINTR WSAEACCES WSAEFAULT WSAEINVAL WSAEMFILE WSAEINPROGRESS WSAENOTSOCK WSAENOPROTOOPT
        WSAEOPNOTSUPP WSAENETDOWN WSAENOBUFS WSAEISCONN WSAENOTCONN WSA_INFINITE WSA_MAXIMUM_WAIT_EVENTS
        WSA_WAIT_EVENT_0 WSA_WAIT_IO_COMPLETION WSA_WAIT_TIMEOUT WSA_WAIT_FAILED ERROR_INSUFFICIENT_BUFFER ERROR_ABANDONED_WAIT_0
        ERROR_NOT_FOUND FWP_E_NOT_FOUND
    };
    let header = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/carnet_winsock.h")).unwrap();
    let defined: BTreeMap<&str, u32> = header.lines().filter_map(definition).collect();
    for (name, number) in numbers {
        assert_eq!(defined.get(name), Some(&number), "{name}");
    }
}

/// Name and value of a `#define` of a number.
fn definition(line: &str) -> Option<(&str, u32)> {
    let mut words = line.strip_prefix("#define ")?.split_whitespace();
    let name = words.next()?;
    let value = words.next()?.trim_start_matches("((LONG)").trim_end_matches([')', 'u']);
    let number = value.strip_prefix("0x").map_or_else(|| value.parse(), |digits| u32::from_str_radix(digits, 16));
    Some((name, number.ok()?))
}

struct Header<'a> {
    file: &'a str,
    guard: &'a str,
    about: &'a str,
    preamble: Option<String>,
    sources: &'a [&'a str],
}

impl Header<'_> {
    fn check(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include").join(self.file);
        let generated = self.generate();
        if env::var_os("CARNET_BLESS").is_some() {
            fs::write(&path, &generated).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        if committed == generated {
            return;
        }
        let line = committed.lines().zip(generated.lines()).take_while(|(one, other)| one == other).count();
        let there = |text: &str| text.lines().nth(line).unwrap_or("nothing").to_owned();
        panic!(
            "{} is not what the source says, from line {} on. There it has\n{}\nand should have\n{}\n\
             Look at the change, then write it: CARNET_BLESS=1 cargo test -p carnet-ffi --test headers",
            self.file,
            line + 1,
            there(&committed),
            there(&generated)
        );
    }

    fn generate(&self) -> String {
        let config = Config {
            language: Language::C,
            cpp_compat: true,
            style: Style::Type,
            braces: Braces::SameLine,
            line_length: 118,
            tab_width: 8,
            documentation: true,
            documentation_style: DocumentationStyle::Doxy,
            include_guard: Some(self.guard.into()),
            header: Some(self.about.into()),
            no_includes: true,
            sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).into(),
            after_includes: self.preamble.clone(),
            usize_is_size_t: true,
            sort_by: SortKey::None,
            defines: [("windows".into(), "_WIN32".into())].into(),
            ..Config::default()
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let builder = self
            .sources
            .iter()
            .fold(Builder::new().with_config(config), |builder, file| builder.with_src(source.join(file)));
        let mut text = Vec::new();
        builder.generate().unwrap().write(&mut text);
        for_c(&String::from_utf8(text).unwrap())
    }
}

/// Comments for those who read C: "# Safety" is for who calls from Rust, and docs/c-api.md says the same once, for all.
fn for_c(header: &str) -> String {
    let mut kept = String::new();
    let mut lines = header.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("/**").filter(|before| before.trim().is_empty()) else {
            kept += &format!("{}\n", line.replace("        ", "\t"));
            continue;
        };
        let comment = lines.by_ref().map(|line| line.trim_start().replace('`', ""));
        let comment: Vec<_> = comment.take_while(|line| line != "*/").collect();
        let end = comment.iter().position(|line| line == "* # Safety").unwrap_or(comment.len());
        let comment = comment[..end].join(&format!("\n{indent} "));
        let text = match comment.trim_end_matches(['\n', ' ', '*']) {
            one if !one.contains('\n') => format!("{indent}/**{} */\n", &one[1..]),
            more => format!("{indent}/**\n{indent} {more}\n{indent} */\n"),
        };
        kept += &text.replace("        ", "\t");
    }
    kept
}

fn sources(below: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.extend(sources(&path));
        } else {
            found.push((path.display().to_string(), fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found
}

const CARNET_H: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a redirect service links: where an accepted connection was going, who made it, and its record, for the socket
 * with which the service goes on.
 *
 *	cc service.c $(pkg-config --cflags --libs carnet)
 *
 * Generated from crates/carnet-ffi/src; docs/c-api.md is the reference. In short:
 *
 * - Functions that can fail give CARNET_OK or one of CARNET_ERROR_*, or -1 in the place of a descriptor. Where their
 *   last argument is not NULL, an error object is put there, or NULL when all went well. It is yours to free.
 * - A NULL that should be none is an error, and no crash. A pointer that points nowhere is the program's bug.
 * - What is given to you ends with the function that is named with it: carnet_flow_free(), carnet_error_free(),
 *   close().
 * - Every function may be called from any thread at any time. Objects may be shared, as long as nobody frees them.
 */";

const CARNET_WSA_H: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Windows' calls on redirect records, on Linux, under names of ours: arguments, results and error numbers are Windows'.
 * A source that was written for Windows includes carnet_winsock.h, which gives them the names that it knows.
 *
 * Generated from crates/carnet-ffi/src/wsa.rs; docs/c-api.md is the reference. For new code there is carnet.h.
 */";
