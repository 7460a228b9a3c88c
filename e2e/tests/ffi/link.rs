//! Programs that use the installed tree as its own documentation says.

use std::fs;
use std::path::Path;

use carnet_e2e::programs::{Scratch, program, succeed};

use crate::built::{Language, Link, build, install, installed, library_path, root};

use self::Language::{C, Cpp};

/// Everything that the headers declare can be linked, and the library that runs is that of the header.
#[test]
fn every_function_of_the_headers_is_in_both_libraries() {
    for link in [Link::Shared, Link::Static, Link::AllStatic] {
        for language in [C, Cpp] {
            let scratch = Directory::new();
            let source = scratch.source(language, &every_function());
            let output = scratch.file("program");
            build(language, link, &source, &output);
            let said = succeed(program(output.to_str().unwrap()).env("LD_LIBRARY_PATH", library_path()));
            assert_eq!(said, "all of them\n", "{language:?} {link:?}");
        }
    }
}

/// Alone, twice, and with each other, in either order; with `carnet_abi.h`, too, which has a `struct carnet_flow`.
#[test]
fn each_header_is_complete_and_goes_with_the_others() {
    let headers = ["carnet.h", "carnet_wsa.h", "carnet_winsock.h", "carnet_abi.h"];
    for first in headers {
        for second in headers {
            for language in [C, Cpp] {
                let scratch = Directory::new();
                let source =
                    scratch.source(language, &format!("#include <{first}>\n#include <{second}>\nint carnet_here;\n"));
                let mut compiler = language.compiler();
                let include = installed().join("opt/carnet/include");
                succeed(compiler.arg("-fsyntax-only").arg("-I").arg(include).arg(&source));
            }
        }
    }
}

/// Root's umask may keep others from what root writes. What is installed is for them.
#[test]
fn everybody_may_read_what_is_installed() {
    installed();
    let scratch = Scratch::new();
    let tree = scratch.file("tree");
    succeed(install(program("sh").args(["-c", "umask 077; exec make \"$@\"", "make"]), &tree));

    let found = succeed(program("find").arg(&tree).args(["-type", "f", "-printf", "%m %f\n"]));
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    let library = format!("755 libcarnet.so.{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "644 carnet.h",
        "644 carnet.pc",
        "644 carnet_abi.h",
        "644 carnet_winsock.h",
        "644 carnet_wsa.h",
        "644 libcarnet.a",
        &library,
    ];
    assert_eq!(found, expected);
    let hidden = succeed(program("find").arg(&tree).args(["-mindepth", "1", "-type", "d", "!", "-perm", "755"]));
    assert_eq!(hidden, "", "directories that not everybody may enter");
}

/// A program is bound to the library's major version, and runs with a later minor one.
#[test]
fn the_shared_library_has_the_name_that_programs_look_for() {
    let library = library_path();
    let said = succeed(program("objdump").arg("-p").arg(library.join("libcarnet.so")));
    assert!(said.lines().any(|line| line.split_whitespace().eq(["SONAME", "libcarnet.so.0"])), "{said}");
    let version = env!("CARGO_PKG_VERSION");
    for (link, to) in [("libcarnet.so", "libcarnet.so.0"), ("libcarnet.so.0", &format!("libcarnet.so.{version}"))] {
        assert_eq!(fs::read_link(library.join(link)).unwrap(), Path::new(to));
    }
    assert!(
        fs::read_to_string(library.join("pkgconfig/carnet.pc")).unwrap().contains(&format!("Version: {version}\n"))
    );
}

/// Nothing but `carnet_*` is offered by the shared library.
#[test]
fn the_shared_library_offers_the_functions_of_the_headers_and_no_others() {
    let said = succeed(program("nm").args(["-D", "--defined-only"]).arg(library_path().join("libcarnet.so")));
    let mut offered: Vec<_> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let declared = declared();
    let mut declared: Vec<_> = declared.iter().map(String::as_str).collect();
    offered.sort_unstable();
    declared.sort_unstable();
    assert_eq!(offered, declared);
}

/// The services build by the lines that they begin with, with each library, and the shared one is found at run time.
#[test]
fn the_services_build_as_they_say() {
    for (language, example) in [(C, "c/library_service.c"), (Cpp, "cpp/service.cpp"), (C, "winsock/service.c")] {
        let scratch = Directory::new();
        let output = scratch.file("service");
        build(language, Link::Shared, &root().join("examples").join(example), &output);
        let ended =
            carnet_e2e::command::finish(program(output.to_str().unwrap()).env("LD_LIBRARY_PATH", library_path()));
        assert_eq!((ended.code, ended.errors.starts_with("usage: service PORT")), (2, true), "{ended:?}");
    }
}

/// Where a program has the name, it has Windows' number; wrong ones are about. (That those of Linux are the same is seen
/// by `crates/carnet-ffi/tests/headers.rs`.)
#[test]
fn the_codes_are_windows_own() {
    let scratch = Directory::new();
    let source = scratch.source(
        C,
        "#include <carnet_winsock.h>\n\
         _Static_assert(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS == _WSAIOW(IOC_VENDOR, 220), \"\");\n\
         _Static_assert(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT == _WSAIOW(IOC_VENDOR, 221), \"\");\n\
         _Static_assert(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS == _WSAIOW(IOC_VENDOR, 222), \"\");\n",
    );
    let mut compiler = program("x86_64-w64-mingw32-gcc");
    compiler.arg("-fsyntax-only").arg("-I").arg(installed().join("opt/carnet/include"));
    succeed(compiler.arg(source));
}

struct Directory(Scratch);

impl Directory {
    fn new() -> Self {
        let scratch = Scratch::new();
        Self(scratch)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.file(name)
    }

    fn source(&self, language: Language, text: &str) -> std::path::PathBuf {
        let file = self.0.file(if matches!(language, C) { "source.c" } else { "source.cpp" });
        fs::write(&file, text).unwrap();
        file
    }
}

/// Has the address of each function, and calls one.
fn every_function() -> String {
    let taken: String = declared().iter().map(|name| format!("\t(function){name},\n")).collect();
    format!(
        "#include <carnet.h>\n#include <carnet_wsa.h>\n#include <stdio.h>\n#include <string.h>\n\
         typedef void (*function)(void);\nstatic const function volatile functions[] = {{\n{taken}}};\n\
         int main(void)\n{{\n\tunsigned linked = 0;\n\
         \tfor (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)\n\t\tlinked += functions[i] != 0;\n\
         \tputs(linked == {} && strcmp(carnet_version(), CARNET_VERSION) == 0 ? \"all of them\" : \"not all\");\n\
         \treturn 0;\n}}\n",
        declared().len()
    )
}

/// Names of the functions in the generated headers.
fn declared() -> Vec<String> {
    let mut names = Vec::new();
    for header in ["carnet.h", "carnet_wsa.h"] {
        let text = fs::read_to_string(installed().join("opt/carnet/include").join(header)).unwrap();
        // A declaration begins at the start of its line, unlike what comments say.
        let functions =
            text.lines().filter(|line| !line.starts_with([' ', '/', '#', '\t']) && !line.starts_with("typedef"));
        names.extend(functions.filter_map(|line| {
            let name = line.split_once('(')?.0.rsplit([' ', '*']).next()?;
            name.starts_with("carnet_").then(|| name.to_owned())
        }));
    }
    assert!(names.len() > 50, "{names:?}");
    names
}
