//! Compiles the kernel programs with clang. No skeleton: the objects are opened by name at run time (docs/adr).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let abi = Path::new("../carnet-abi/include");
    for folder in [Path::new("bpf"), abi] {
        for entry in fs::read_dir(folder).expect("the folder is part of the source").flatten() {
            println!("cargo::rerun-if-changed={}", entry.path().display());
        }
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=LLVM_STRIP");

    for name in ["carnet", "probe"] {
        let source = Path::new("bpf").join(format!("{name}.bpf.c"));
        compile(&source, abi, &out.join(format!("{name}.bpf.o")));
    }
}

fn compile(source: &Path, abi: &Path, object: &Path) {
    let mut clang = Command::new(env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]);
    clang.arg("-I").arg(abi).args(system_include()).arg("-c").arg(source).arg("-o").arg(object);
    run(clang, "clang", "apt-get install clang libbpf-dev");

    // Keeps the BTF, which the loader and the layout test read, and drops the DWARF.
    let mut strip = Command::new(env::var_os("LLVM_STRIP").unwrap_or_else(|| "llvm-strip".into()));
    strip.arg("-g").arg(object);
    run(strip, "llvm-strip", "apt-get install llvm");
}

/// Debian keeps `asm/types.h` in a folder named after the machine, which clang does not search for the bpf target.
fn system_include() -> Vec<String> {
    let machine = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let folder = format!("/usr/include/{machine}-linux-gnu");
    if Path::new(&folder).is_dir() { vec!["-idirafter".into(), folder] } else { Vec::new() }
}

fn run(mut command: Command, program: &str, remedy: &str) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{program} failed ({status}); what it printed is above"),
        Err(error) => panic!("cannot start {program}: {error}. It compiles the kernel program. Try: {remedy}"),
    }
}
