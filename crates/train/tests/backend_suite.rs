//! ONNX's own backend suite (Debian's `libonnx-testdata`, or the folder in `ONNX_TESTDATA`): every node case is run and
//! its verdict compared with the checked-in manifest, so that neither a regression nor a gain goes unnoticed.
//!
//! `ESPALIER_UPDATE_MANIFEST=1 cargo test -p espalier-train --test backend_suite` writes the manifest anew; a path in place
//! of the 1 writes the verdicts there, for another release of the suite.
mod suite;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use suite::Verdict;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backend_suite.txt");

/// Cases that cannot pass, by the beginning of their names, and why.
const KNOWN: &[(&str, &str)] = &[
    ("test_bernoulli", "random outputs cannot be compared"),
    ("test_castlike_BFLOAT16_to_FLOAT", "the stored input does not have the shape that the graph declares"),
    ("test_castlike_FLOAT_to_BFLOAT16", "the stored input does not have the shape that the graph declares"),
    ("test_training_dropout", "random outputs cannot be compared"),
    ("test_resize_downsample_scales_cubic_align_corners", "the expected values predate a correction of the specification"),
    ("test_resize_downsample_scales_linear_align_corners", "the expected values predate a correction of the specification"),
];

#[test]
fn verdicts_are_those_of_the_manifest() {
    let Some(folder) = suite::folder() else { return };
    let verdicts = run_all(&folder);
    let passed = verdicts.values().filter(|v| v.is_ok()).count();
    println!("{passed} of {} cases pass", verdicts.len());
    if let Some(to) = std::env::var_os("ESPALIER_UPDATE_MANIFEST") {
        let to = if to == "1" { PathBuf::from(MANIFEST) } else { PathBuf::from(to) };
        std::fs::write(to, render(&verdicts)).unwrap();
        return;
    }
    let expected = parse(&std::fs::read_to_string(MANIFEST).unwrap());
    let mut wrong = String::new();
    for (case, verdict) in &verdicts {
        match (expected.get(case), verdict) {
            (Some(true), Err(why)) => writeln!(wrong, "{case} passed and now fails: {why}").unwrap(),
            (Some(false), Ok(())) => writeln!(wrong, "{case} is listed as failing and passes").unwrap(),
            (None, _) => println!("{case} is not in the manifest: another release of the suite"),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}ESPALIER_UPDATE_MANIFEST=1 writes the manifest anew");
}

fn run_all(folder: &Path) -> BTreeMap<String, Verdict> {
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|e| e.path().join("model.onnx").is_file())
        .map(|e| {
            let case = e.file_name().to_string_lossy().into_owned();
            let known = KNOWN.iter().find(|(prefix, _)| case.starts_with(prefix));
            let verdict = suite::load(&e.path())
                .and_then(|model| suite::run(&model, &e.path()))
                .map_err(|why| known.map_or(why, |(_, known)| known.to_string()));
            (case, verdict)
        })
        .collect()
}

fn render(verdicts: &BTreeMap<String, Verdict>) -> String {
    let mut text = String::new();
    for (case, verdict) in verdicts {
        match verdict {
            Ok(()) => writeln!(text, "{case} pass").unwrap(),
            Err(why) => writeln!(text, "{case} fail {why}").unwrap(),
        }
    }
    text
}

/// Whether each listed case passes.
fn parse(manifest: &str) -> BTreeMap<String, bool> {
    manifest.lines().filter_map(|l| l.split_once(' ')).map(|(case, verdict)| (case.to_string(), verdict == "pass")).collect()
}
