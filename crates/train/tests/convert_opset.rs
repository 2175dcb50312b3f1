//! Raising a model to a newer operator set changes none of its outputs: every case of the backend suite that passes is
//! raised to later operator sets and must still give its expected outputs, or be refused with a reason that the
//! checked-in manifest lists.
//!
//! `ESPALIER_UPDATE_MANIFEST=1 cargo test -p espalier-train --test convert_opset` writes the manifest anew; a path in
//! place of the 1 writes the refusals there, for another release of the suite.
mod suite;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert_opset.txt");

/// Where operators changed their meaning in ways that differ: axes as inputs (13, 18), widened types (21, 25), the newest.
const TARGETS: [i64; 5] = [13, 18, 21, 25, 28];

#[test]
fn raised_models_give_the_same_outputs_or_are_refused() {
    let Some(folder) = suite::folder() else { return };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path()).collect();
    cases.sort();
    let (mut raised, mut refused, mut wrong) = (0, BTreeSet::new(), vec![]);
    for case in cases {
        for to in TARGETS {
            match raise(&case, to) {
                Outcome::NotTried => {}
                Outcome::Same => raised += 1,
                Outcome::Refused(why) => drop(refused.insert(format!("{} {why}", name(&case)))),
                Outcome::Wrong(why) => wrong.push(format!("{} raised to {to}: {why}", name(&case))),
            }
        }
    }
    println!("{raised} conversions keep their outputs, {} cases are refused at some version", refused.len());
    assert!(wrong.is_empty(), "{} conversions change the outputs:\n{}", wrong.len(), wrong.join("\n"));
    if let Some(to) = std::env::var_os("ESPALIER_UPDATE_MANIFEST") {
        let to = if to == "1" { PathBuf::from(MANIFEST) } else { PathBuf::from(to) };
        std::fs::write(to, refused.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
        return;
    }
    let listed: BTreeSet<String> = std::fs::read_to_string(MANIFEST).unwrap().lines().map(str::to_string).collect();
    let new: Vec<&String> = refused.difference(&listed).collect();
    assert!(new.is_empty(), "refusals that the manifest does not list: {new:#?}");
}

enum Outcome {
    /// The case does not pass as it is, or is newer than the target already.
    NotTried,
    Same,
    Refused(String),
    Wrong(String),
}

fn raise(case: &Path, to: i64) -> Outcome {
    let Ok(model) = suite::load(case) else { return Outcome::NotTried };
    if model.onnx_opset() >= to || suite::run(&model, case).is_err() {
        return Outcome::NotTried;
    }
    let mut newer = model.clone();
    if let Err(e) = ops::convert_opset(&mut newer, to) {
        return Outcome::Refused(e.to_string());
    }
    // The written model must be readable.
    let written = onnx::to_bytes(&newer).map_err(|e| e.to_string());
    match written.and_then(|bytes| onnx::from_bytes(&bytes, None).map_err(|e| e.to_string())).and_then(|read| suite::run(&read, case)) {
        Ok(()) => Outcome::Same,
        Err(why) => Outcome::Wrong(why),
    }
}

fn name(case: &Path) -> String {
    case.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
