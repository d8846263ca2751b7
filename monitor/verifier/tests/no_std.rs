//! The verifier needs no standard library: it links in a crate that has none.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::{env, fs};

/// Build `tests/no_std/lib.rs` in a directory of its own, since it must not share a profile with crates that unwind.
fn build(flags: &str) -> Output {
    let verifier = env!("CARGO_MANIFEST_DIR");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no_std");
    fs::create_dir_all(directory.join("src")).expect("a directory");
    let manifest = format!(
        "[package]\nname = 'no-std'\nversion = '0.0.0'\nedition = '2024'\n\
         [lib]\ncrate-type = ['staticlib']\n\
         [dependencies]\nzetakv-verifier = {{ path = '{verifier}' }}\n\
         [lints.rust]\nunexpected_cfgs = {{ level = 'allow' }}\n\
         [profile.dev]\npanic = 'abort'\n\
         [workspace]\n"
    );
    fs::write(directory.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(directory.join("src/lib.rs"), include_str!("no_std/lib.rs")).expect("a source");
    fs::copy(format!("{verifier}/../../Cargo.lock"), directory.join("Cargo.lock")).expect("the same versions");
    Command::new(env::var("CARGO").expect("cargo runs the tests"))
        .args(["rustc", "--offline", "--quiet", "--manifest-path"])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(directory.join("target"))
        .args(["--", "--cfg", flags])
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts")
}

#[test]
fn links_without_the_standard_library() {
    let plain = build("plain");
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    // and would not if anything used it
    let canary = build("canary");
    let message = String::from_utf8_lossy(&canary.stderr);
    assert!(
        message.contains("duplicate lang item") || message.contains("found duplicate"),
        "{message}"
    );
}
