//! Packed models: archives that are damaged, with and without a checksum that fits.
use super::{Target, models};
use crate::case::Case;
use crate::mutate;
use crate::random::Random;
use std::path::Path;

pub(super) const ARCHIVE: Target =
    Target { name: "archive", what: "packed models, unpacked; model files, packed", seeds: archives, mutate: archive, run: both_ways };

fn archives() -> Result<Vec<Case>, String> {
    let mut cases = models::fixtures()?;
    for case in &mut cases {
        for (name, bytes) in case.files.iter_mut().filter(|(name, _)| name.ends_with(".onnx")) {
            *bytes = pack::pack(bytes).map_err(|e| format!("{name}: {e}"))?.0;
        }
    }
    cases.extend(models::fixtures()?);
    Ok(cases)
}

fn archive(r: &mut Random, (_, file): &mut (String, Vec<u8>), other: &[u8]) {
    mutate::bytes(r, file, other);
    // Else the checksum finds every change before anything is decoded.
    if file.len() > 4 && r.chance(90) {
        let body = file.len() - 4;
        let sum = unpack::checksum(&file[..body]);
        file[body..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// An archive gives a file or an error; what can be packed comes back.
fn both_ways(case: &Case, _: &Path) -> Result<(), String> {
    unpack::unpack(case.bytes()).ok();
    match pack::pack(case.bytes()) {
        Err(pack::PackError::Unfaithful(fault)) => Err(format!("what was packed does not come back: {fault}")),
        _ => Ok(()),
    }
}
