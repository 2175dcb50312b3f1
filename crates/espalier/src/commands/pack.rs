//! `pack` and `unpack`: an archive of an ONNX file with context-adaptive arithmetic coding, and back.
use crate::{Error, Result};
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The ending of archives.
pub const ARCHIVE: &str = "espk";

/// A packed model.
#[derive(Clone, Debug, Serialize)]
pub struct Packed {
    /// The archive.
    pub archive: String,
    /// Bytes of the model.
    pub model_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Bytes of the model that are numbers of tensors, and bytes of the archive for them.
    pub numbers: [u64; 2],
}

/// Packs a model into an archive, by default `MODEL.espk`. What comes back is checked before anything is written.
///
/// # Errors
/// If the model cannot be read, keeps its weights in other files, or the archive cannot be written.
pub fn pack(model: &Path, output: Option<&Path>) -> Result<Packed> {
    let file = read(model)?;
    let parsed = onnx::from_bytes(&file, Some(files::folder_of(model))).map_err(|e| e.in_file(model))?;
    if let Some(data) = onnx::data_files(&parsed).first() {
        return Err(Error::Input(format!(
            "{}: its weights lie in {}; only files that hold all can be packed",
            model.display(),
            data.display()
        )));
    }
    let output = output.map_or_else(|| PathBuf::from(format!("{}.{ARCHIVE}", model.display())), Path::to_path_buf);
    keeps(&output, model)?;
    let (archive, sizes) = pack::pack(&file).map_err(|e| Error::Input(format!("{}: {e}", model.display())))?;
    files::write(&output, &archive).map_err(|e| Error::Input(format!("{}: {e}", output.display())))?;
    Ok(Packed {
        archive: output.display().to_string(),
        model_bytes: sizes.file as u64,
        archive_bytes: sizes.archive as u64,
        numbers: [sizes.numbers as u64, sizes.coded_numbers as u64],
    })
}

/// An unpacked model.
#[derive(Clone, Debug, Serialize)]
pub struct Unpacked {
    /// The model.
    pub model: String,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Bytes of the model.
    pub model_bytes: u64,
}

/// Unpacks an archive: the file that was packed, byte by byte. By default its name without `.espk`.
///
/// # Errors
/// If it is no archive or a damaged one, or the file cannot be written.
pub fn unpack(archive: &Path, output: Option<&Path>) -> Result<Unpacked> {
    let bytes = read(archive)?;
    let output = match output {
        Some(output) => output.to_path_buf(),
        None if archive.extension().is_some_and(|e| e == ARCHIVE) => archive.with_extension(""),
        None => return Err(Error::Input(format!("{}: its name does not end in .{ARCHIVE}: say with -o what to write", archive.display()))),
    };
    keeps(&output, archive)?;
    let file = pack::unpack(&bytes).map_err(|e| Error::Input(format!("{}: {e}", archive.display())))?;
    files::write(&output, &file).map_err(|e| Error::Input(format!("{}: {e}", output.display())))?;
    let [archive_bytes, model_bytes] = [bytes.len() as u64, file.len() as u64];
    Ok(Unpacked { model: output.display().to_string(), archive_bytes, model_bytes })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::Input(format!("{}: {e}", path.display())))
}

fn keeps(output: &Path, input: &Path) -> Result<()> {
    match files::destroyed(output, [input]) {
        Some(lost) => Err(Error::Input(format!("{} would be overwritten: give -o another name", lost.display()))),
        None => Ok(()),
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.model_bytes as f64 / self.archive_bytes.max(1) as f64;
        let [before, after] = self.numbers;
        writeln!(
            f,
            "{}: {} for {} ({ratio:.2} times smaller), checked: it gives the model back byte by byte",
            self.archive,
            text::bytes(self.archive_bytes),
            text::bytes(self.model_bytes)
        )?;
        let rest = [self.model_bytes - before, self.archive_bytes.saturating_sub(after)];
        writeln!(f, "  numbers of tensors  {} → {}", text::bytes(before), text::bytes(after))?;
        writeln!(f, "  graph and names     {} → {}", text::bytes(rest[0]), text::bytes(rest[1]))
    }
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, checksum as packed", self.model, text::bytes(self.model_bytes))
    }
}
